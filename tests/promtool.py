"""Series as `promtool test rules` reads them, and the alerts that the shipped rules give on them. For `test_ops.py`.

A world is a mapping of series to values, as (samples, value) parts: of a counter the value is what a sample adds, of a
gauge what it reads. None: the server did not answer; Prometheus marks its series as stale then.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.test_architecture import ROOT

RULES = ROOT / "decider" / "metrics" / "ops" / "rules.yml"
ALERTS = tuple(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))
"""The names of all alerts."""
GROUPS = re.findall(r"- name: ([\w-]+)", RULES.read_text(encoding="utf-8"))
"""Of rules, in the file's order: without it promtool takes any, and what is recorded may come too late."""

FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'

Part = tuple[int, float | None]
World = Mapping[str, str]


def gauge(*parts: Part) -> str:
    """So many samples of each value."""
    return " ".join(_missing(count) if value is None else f"{value}+0x{count - 1}" for count, value in parts)


def counter(*parts: Part, restarts: bool = False) -> str:
    """So many samples that add so much each. restarts: it begins at 0 again after it was missing."""
    texts, total = [], 0.0
    for count, rate in parts:
        texts.append(_missing(count) if rate is None else f"{total}+{rate}x{count - 1}")
        total = 0.0 if rate is None and restarts else total + count * (rate or 0.0)
    return " ".join(texts)


def _missing(count: int) -> str:
    return "stale" if count == 1 else f"stale _x{count - 1}"


def promtool() -> str:
    """The program; skips the test where it is not installed."""
    binary = shutil.which("promtool", path="/usr/bin")
    if binary is None:
        pytest.skip("there is no /usr/bin/promtool")
    return binary


def check_alerts(world: World, expected: Mapping[int, Iterable[str]], folder: Path, *, interval: int = 60) -> None:
    """Fails unless exactly these alerts fire, by number of the sample. interval: seconds between samples."""
    looks = [
        {
            "expr": FIRING,
            "eval_time": f"{sample * interval}s",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }
        for sample, names in expected.items()
    ]
    series = [{"series": name, "values": values} for name, values in world.items()]
    every = f"{interval}s"
    test = {"interval": every, "input_series": series, "promql_expr_test": looks}
    file = folder / "test.yml"  # JSON is YAML
    content = {"rule_files": [str(RULES)], "evaluation_interval": every, "group_eval_order": GROUPS, "tests": [test]}
    file.write_text(json.dumps(content))
    done = subprocess.run([promtool(), "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
