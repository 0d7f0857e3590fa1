"""`decider ops`: print what is shipped for operators: texts, alert rules, dashboard, units, container file, manifests.

Called by `server/command.py`.
"""

from __future__ import annotations

from importlib import resources

import click

FILES = {
    "steps": "deploy/README.md",
    "runbooks": "README.md",
    "rules": "metrics/ops/rules.yml",
    "dashboard": "metrics/ops/dashboard.json",
    "systemd": "deploy/decider.service",
    "socket": "deploy/decider.socket",
    "litestream": "deploy/decider-litestream.service",
    "container": "deploy/Containerfile",
    "kubernetes": "deploy/kubernetes.yaml",
}
"""What can be printed, and its file in `decider/`."""

EXAMPLES = """
\b
Examples:
  decider ops steps | less
  decider ops runbooks | less +/DeciderNotReady
  decider ops rules > decider-rules.yml
  decider ops dashboard > decider-dashboard.json
  decider ops systemd > /etc/systemd/system/decider.service
  decider ops kubernetes > decider.yaml
"""


@click.command(name="ops", epilog=EXAMPLES)
@click.argument("what", type=click.Choice(list(FILES)))
def ops_command(what: str) -> None:
    """Print a file for operators: rules or dashboard for Prometheus and Grafana, units for systemd, a container file,
    manifests for Kubernetes.

    How to load rules and what each alert means: "Alerts" in decider/README.md, which `runbooks` prints. All others:
    decider/deploy/README.md, which `steps` prints.
    """
    click.echo(resources.files("decider").joinpath(FILES[what]).read_text(encoding="utf-8"), nl=False)
