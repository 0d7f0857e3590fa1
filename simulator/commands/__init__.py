"""The `simulator` command: one module for each subcommand, on top of every other room."""
