"""The entry point of the `simulator` command, which is in `commands/group.py`."""

from __future__ import annotations

from decider.extras import needs_extra


def main() -> None:
    """Run the command, or name the extra that it needs."""
    with needs_extra("simulator", command="simulator"):
        from simulator.commands import group  # imports click, which the client does without

        group.main()


if __name__ == "__main__":
    main()
