"""The `simulator` command: a group of the other modules of this room. Called by `simulator/cli.py`."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "agreement": "agreement",
    "compare": "compare",
    "demo": "demo",
    "demo-cluster": "demo_cluster",
    "drive": "drive",
    "evaluate": "evaluate",
    "evaluate-large": "evaluate_large",
    "export": "logs",
    "import": "logs",
    "inspect": "evaluate",
    "lift": "lift",
    "plan": "plan",
    "run": "run",
    "verify": "verify",
    "worlds": "worlds",
}
"""Each command with its module."""


class LateGroup(click.Group):
    """A command's module is imported when it is asked for: most need SciPy, Arrow or plots."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All of them, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """By its name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"simulator.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command


@click.group(
    cls=LateGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
        "auto_envvar_prefix": "SIMULATOR",
    },
)
def main() -> None:
    """Worlds, datasets, replay and evaluation for the decision service.

    Every option can also come from the environment, as SIMULATOR_DEMO_LISTEN for `demo --listen`.
    """
