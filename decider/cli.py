"""The entry point of the `decider` command, which is in `server/command.py`."""

from __future__ import annotations

from decider.extras import needs_extra


def main() -> None:
    """Run the command, or name the extra that it needs."""
    with needs_extra("server", command="decider"):
        from decider.server import command  # imports click, which the client does without

        command.main()


if __name__ == "__main__":
    main()
