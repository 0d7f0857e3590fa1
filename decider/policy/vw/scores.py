"""The costs that a model of Vowpal Wabbit expects of each action, from which its exploration makes the pmf. Called by
`workspace.py`, for explanations.

VW tells them only as the tree of computations of a prediction: each node `cb_adf` is one regression that was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev
from typing import Any, NamedTuple, cast

from vowpal_wabbit_next import DebugNode, TextFormatParser, Workspace

from decider.policy.features import vector_of
from decider.policy.protocol import Choice
from decider.policy.vw.encode import action_line, context_line
from decider.types import Context

REGRESSION, VOTERS = "cb_adf", "--bag"
"""The name of a regression's nodes; the argument of the algorithm that asks several of them for their best action.
Others have one, the first (offset 0): those behind it predict no costs (rnd), or are policies (cover)."""


class ExpectedCosts(NamedTuple):
    """Of each action. deviation: between the regressions that vote; empty where there is one."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...] = ()


def expected_costs(
    arguments: str, saved: bytes, contexts: Sequence[Context], actions: Sequence[Choice]
) -> list[ExpectedCosts]:
    """For each context."""
    words = arguments.split()
    workspace = Workspace(words, model_data=saved, enable_debug_tree=True)
    parser = TextFormatParser(workspace)
    found = []
    for context in contexts:
        lines = [context_line(context[:5], vector_of(context.features)), *map(action_line, actions)]
        # An example that was predicted is changed by it, so each is parsed anew.
        _, nodes = workspace.predict_one([parser.parse_line(line) for line in lines])
        regressions = [costs for offset, costs in _regressions(nodes) if offset == 0 or VOTERS in words]
        found.append(_summary(regressions))
    return found


def _summary(regressions: Sequence[tuple[float, ...]]) -> ExpectedCosts:
    by_action = list(zip(*regressions, strict=True))
    return ExpectedCosts(tuple(map(fmean, by_action)), tuple(map(pstdev, by_action)) if len(regressions) > 1 else ())


def _regressions(nodes: Any) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Offset and costs of each, in VW's order. nodes: one or several, as VW gives them."""
    for node in nodes if isinstance(nodes, list) else [nodes]:
        if node.name == REGRESSION:
            yield cast(list[int], node.offset)[0], _costs(node)
        else:
            yield from _regressions(node.children)


def _costs(node: DebugNode) -> tuple[float, ...]:
    """In the order of the actions; VW gives them by cost."""
    return tuple([cost for _, cost in sorted(cast(list[tuple[int, float]], node.output_prediction))])
