"""The dashboard for Grafana, as code: `make dashboard` writes `decider/metrics/ops/dashboard.json`, which is shipped.

It is built with Grafana's own types (grafana-foundation-sdk), so that what is written is what Grafana reads. Metrics
are named as in `decider/metrics/`. `tests/test_ops_live.py` sends every expression to a real Prometheus.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

OF_EXPERIMENT = 'job=~"$job", experiment=~"$experiment"'
OF_SERVER = 'job=~"$job"'
CALLS = f'{OF_SERVER}, grpc_service="decider.v1.DeciderService"'
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
INFO = f"decider_experiment_info{{{OF_EXPERIMENT}}}"
LEFT_OUT = f"decider_leave_outs_total{{{OF_EXPERIMENT}}}"
STEP = "60s"
OF_GUARDRAIL = f"max by (experiment, name) (decider_guardrail_log_evalue{{{OF_EXPERIMENT}}})"
GUARDRAIL_EVIDENCE = f"{OF_GUARDRAIL} - on (experiment) group_left () ln(20 * count by (experiment) ({OF_GUARDRAIL}))"
HIGH, LOW = "at most", "at least"
"""The ends of an interval, in legends."""

WIDTH, HEIGHT = 12, 8
"""Of a panel: two beside each other."""


@dataclass(frozen=True, slots=True)
class Graph:
    """queries: (legend, PromQL). band: two of them are the ends of an interval. shares: of a whole, stacked. line: a
    value that the eye compares with."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    band: bool = False
    shares: bool = False
    line: float | None = None


def _lift(name: str, legend: str) -> tuple[tuple[str, str], ...]:
    which = f"{OF_EXPERIMENT}, {name}"
    return (
        (f"{legend}lift", f"max by (name) (decider_lift{{{which}}})"),
        (f"{legend}{HIGH}", f"max by (name) (decider_lift_high{{{which}}})"),
        (f"{legend}{LOW}", f"max by (name) (decider_lift_low{{{which}}})"),
    )


def _mean(histogram: str) -> str:
    parts = (f"sum(rate({histogram}_{part}{{{OF_SERVER}}}[$__rate_interval]))" for part in ("sum", "count"))
    return " / ".join(parts)


def _share(part: str, whole: str, by: str, labels: str, window: str = "1h") -> str:
    divisor = f"sum by ({by}) (increase({whole}{{{labels}}}[{window}]))"
    return f"sum by ({by}) (increase({part}{{{labels}}}[{window}])) / ({divisor} > 0)"


ROWS: dict[str, tuple[Graph, ...]] = {
    "Does it pay?": (
        Graph(
            "Lift",
            "What a decision of the policy's units earns more than one of the holdout, with its 95 % interval. The "
            "interval holds at every look. Above 0: it pays. 0 inside: not known yet.",
            "short",
            _lift('name="(learned)"', ""),
            band=True,
            line=0.0,
        ),
        Graph(
            "Lift of every reward",
            "The same for each reward name. Of some, as unsubscribe, less is better.",
            "short",
            _lift('name!="(learned)"', "{{name}}: "),
            line=0.0,
        ),
        Graph(
            "Reward per decision",
            "Mean final reward of the decisions sealed in the last hour. No interval: look at the lift for an answer.",
            "short",
            (("{{group}}", _share("decider_sealed_reward_total", "decider_sealed_total", "group", OF_EXPERIMENT)),),
        ),
        Graph(
            "What certainty costs",
            "What a decision loses on average by the holdout and by exploration, in units of the reward.",
            "short",
            (
                ("holdout", f"max(decider_holdout_cost{{{OF_EXPERIMENT}}})"),
                ("exploration", f"max(decider_exploration_cost{{{OF_EXPERIMENT}}})"),
            ),
        ),
    ),
    "Is it right?": (
        Graph(
            "Evidence that something is wrong",
            "Log evidence. Above the line, ln 1000, the alerts fire. How often chance alone gets there: see Alerts in "
            "the README of decider. Of channels, segments and actions: those with any.",
            "short",
            (
                ("split", f"max(decider_split_log_evalue{{{OF_EXPERIMENT}}})"),
                ("propensities", f"max(decider_propensity_log_evalue{{{OF_EXPERIMENT}}})"),
                (
                    "missing {{name}} ({{group}})",
                    f"max by (name, group) (decider_rewards_missing_log_evalue{{{OF_EXPERIMENT}}})",
                ),
                (
                    "missing {{name}} ({{group}}, {{channel}})",
                    "topk(5, max by (name, group, channel) "
                    f"(decider_channel_rewards_missing_log_evalue{{{OF_EXPERIMENT}}}) > 0)",
                ),
                (
                    "{{field}} {{value}}",
                    "topk(5, max by (field, value) "
                    f"(decider_segment_rewards_missing_log_evalue{{{OF_EXPERIMENT}}}) > 0)",
                ),
                (
                    "action {{action}}",
                    f"topk(5, max by (action) (decider_action_missing_log_evalue{{{OF_EXPERIMENT}}}) > 0)",
                ),
            ),
            line=6.907755,
        ),
        Graph(
            "Guardrails",
            "Evidence less what is needed, ln(20 x number of guardrails): above the line at 0 it is crossed. Crossed: "
            "1 also while everybody gets the baseline since it was.",
            "short",
            (
                ("{{name}}: evidence", GUARDRAIL_EVIDENCE),
                ("{{name}}: crossed", f"max by (name) (decider_guardrail_crossed{{{OF_EXPERIMENT}}})"),
            ),
            line=0.0,
        ),
        Graph(
            "Decisions without a reward",
            "Share of the decisions sealed in the last hour. Both groups up: tracking. The policy alone: the policy.",
            "percentunit",
            (("{{group}}", _share("decider_sealed_default_total", "decider_sealed_total", "group", OF_EXPERIMENT)),),
        ),
        Graph(
            "Rewards",
            "By what became of them. Orphan: without experiment, since no decision has that id.",
            "reqps",
            (
                (
                    "{{name}} {{outcome}}",
                    'sum by (name, outcome) (rate(decider_rewards_total{job=~"$job", experiment=~"$experiment|"}'
                    "[$__rate_interval]))",
                ),
            ),
        ),
        Graph(
            "Learning",
            "Decisions sealed and learned. Held: 1 while nothing is learned since rewards are missing.",
            "short",
            (
                ("sealed/s", f"sum(rate(decider_sealed_total{{{OF_EXPERIMENT}}}[$__rate_interval]))"),
                ("learned/s", f"sum(rate(decider_learned_total{{{OF_EXPERIMENT}}}[$__rate_interval]))"),
                ("held", f"max(decider_learning_held{{{OF_EXPERIMENT}}})"),
            ),
        ),
    ),
    "Who gets what?": (
        Graph(
            "Actions",
            "Share of the decisions. Marks: where the version changed.",
            "short",
            (("{{action}}", f"sum by (action) (rate(decider_decisions_total{{{OF_EXPERIMENT}}}[$__rate_interval]))"),),
            shares=True,
        ),
        Graph(
            "Why",
            "Decisions by reason. FALLBACK: the policy failed.",
            "reqps",
            (("{{reason}}", f"sum by (reason) (rate(decider_decisions_total{{{OF_EXPERIMENT}}}[$__rate_interval]))"),),
        ),
        Graph(
            "Feature problems",
            "Features in requests that break the schema.",
            "reqps",
            (
                (
                    "{{feature}} {{problem}}",
                    f"sum by (feature, problem) (rate(decider_feature_problems_total{{{OF_EXPERIMENT}}}"
                    "[$__rate_interval]))",
                ),
            ),
        ),
        Graph(
            "Version",
            "Which version serves, and in what state.",
            "none",
            (("version {{version}}: {{state}}, {{learning}}, {{policy}}", INFO),),
        ),
    ),
    "Does it run?": (
        Graph(
            "Servers",
            "1: answers, ready.",
            "none",
            (
                ("{{instance}} answers", f"max by (instance) (up{{{OF_SERVER}}})"),
                ("{{instance}} is ready", f"max by (instance) (decider_ready{{{OF_SERVER}}})"),
            ),
        ),
        Graph(
            "Calls",
            "By method and status code.",
            "reqps",
            (
                (
                    "{{grpc_method}} {{grpc_code}}",
                    f"sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total{{{CALLS}}}[$__rate_interval]))",
                ),
            ),
        ),
        Graph(
            "Duration of calls",
            "Median and 99th percentile.",
            "s",
            tuple(
                (
                    f"{{{{grpc_method}}}} {name}",
                    f"histogram_quantile({quantile}, sum by (grpc_method, le) "
                    f"(rate(grpc_server_handling_seconds_bucket{{{CALLS}}}[$__rate_interval])))",
                )
                for name, quantile in (("median", 0.5), ("99 %", 0.99))
            ),
        ),
        Graph(
            "How far behind",
            "Oldest decision that is due and not learned; age of the newest one that the model knows.",
            "s",
            (
                ("seal lag", f"max(decider_seal_lag_seconds{{{OF_SERVER}}})"),
                ("model age", f"max(decider_model_age_seconds{{{OF_EXPERIMENT}}})"),
            ),
        ),
        Graph(
            "Commits",
            "Mean seconds of a commit of the log, and entries in one.",
            "short",
            (
                ("seconds", _mean("decider_commit_seconds")),
                ("entries", _mean("decider_commit_entries")),
            ),
        ),
        Graph(
            "Disk",
            "The log's files, and what is free on their disk.",
            "bytes",
            (
                ("{{instance}} {{file}}", f"max by (instance, file) (decider_log_bytes{{{OF_SERVER}}})"),
                ("{{instance}} free", f"min by (instance) (decider_disk_free_bytes{{{OF_SERVER}}})"),
            ),
        ),
    ),
}


def main() -> None:
    """Print it."""
    print(text(), end="")


def text() -> str:
    """The file's content."""
    made = builders.Dashboard("Decider").uid("decider").tags(["decider"]).refresh("1m").time("now-24h", "now")
    made = made.description("What the policy earns, whether the figures are right, and whether the server runs.")
    made = made.editable().tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    for variable in _variables():
        made = made.with_variable(variable)
    number = count(1)
    for title, graphs in ROWS.items():
        made = made.with_row(builders.Row(title).id(next(number)))
        for graph in graphs:
            made = made.with_panel(_panel(graph).id(next(number)))
    plain: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    plain["annotations"] = {"list": ANNOTATIONS}  # the types lack what the annotations of Prometheus have
    return f"{json.dumps(plain, indent=1, sort_keys=True)}\n"


def _annotation(name: str, colour: str, expression: str, title: str, tags: str) -> dict[str, object]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "name": name, "enable": True, "datasource": source, "iconColor": colour, "expr": expression, "step": STEP,
        "titleFormat": title, "tagKeys": tags,
    }  # fmt: skip


ANNOTATIONS = [
    _annotation("Versions", "blue", f"{INFO} unless {INFO} offset 1m", "version {{version}}", "state,learning,policy"),
    _annotation(
        "Learning", "orange", f"{LEFT_OUT} > {LEFT_OUT} offset 1m", "a rollback, or something is left out of learning",
        "experiment",
    ),
    _annotation(
        "Alerts", "red", 'ALERTS{alertname=~"Decider.*", alertstate="firing", experiment=~"$experiment|"}',
        "{{alertname}}", "severity,name",
    ),
]  # fmt: skip


def _variables() -> list[Any]:
    source = builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    return [
        source,
        _choice("job", "label_values(decider_build_info, job)"),
        _choice("experiment", 'label_values(decider_decisions_total{job=~"$job"}, experiment)'),
    ]


def _choice(name: str, query: str) -> builders.QueryVariable:
    made = builders.QueryVariable(name).query(query).datasource(SOURCE).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    return made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)


def _panel(graph: Graph) -> timeseries.Panel:
    panel = timeseries.Panel().title(graph.title).description(graph.text).unit(graph.unit).datasource(SOURCE)
    panel = panel.span(WIDTH).height(HEIGHT).fill_opacity(0).show_points(common.VisibilityMode.NEVER)
    panel = panel.legend(common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).placement(
        common.LegendPlacement.BOTTOM).show_legend(True))  # fmt: skip
    for number, (legend, expression) in enumerate(graph.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id("ABCDEFGH"[number]).range()
        panel = panel.with_target(query)
    if graph.shares:
        stacking = common_builders.StackingConfig().mode(common.StackingMode.PERCENT).group("A")
        panel = panel.stacking(stacking).fill_opacity(60)
    if graph.band:
        invisible = dashboard.DynamicConfigValue("custom.lineWidth", 0)
        fill = [("custom.fillBelowTo", LOW), ("custom.fillOpacity", 20)]
        panel = panel.override_by_name(HIGH, [invisible, *(dashboard.DynamicConfigValue(*one) for one in fill)])
        panel = panel.override_by_name(LOW, [invisible])
    return panel if graph.line is None else _with_line(panel, graph.line)


def _with_line(panel: timeseries.Panel, value: float) -> timeseries.Panel:
    steps = [dashboard.Threshold(None, "transparent"), dashboard.Threshold(value, "red")]
    thresholds = builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
    style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.LINE)
    return panel.thresholds(thresholds).thresholds_style(style)


if __name__ == "__main__":
    main()
