"""`decider ops`: print the alert rules and the dashboard that are shipped. Called by `server/command.py`."""

from __future__ import annotations

from importlib import resources

import click

FILES = {"rules": "rules.yml", "dashboard": "dashboard.json"}
"""What can be printed, and its file in `decider/metrics/ops/`."""

EXAMPLES = """
\b
Examples:
  decider ops rules > decider-rules.yml
  decider ops dashboard > decider-dashboard.json
"""


@click.command(name="ops", epilog=EXAMPLES)
@click.argument("what", type=click.Choice(list(FILES)))
def ops_command(what: str) -> None:
    """Print the recording and alert rules for Prometheus, or the dashboard for Grafana.

    How to load them, and what each alert means: "Alerts" in decider/README.md.
    """
    file = resources.files("decider.metrics") / "ops" / FILES[what]
    click.echo(file.read_text(encoding="utf-8"), nl=False)
