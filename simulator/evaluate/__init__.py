"""What another policy would have earned on a log: candidates, diagnostics, estimates, and how they are shown."""
