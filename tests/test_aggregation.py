"""Every aggregation on sets that are all zero, all negative, or both: the reward is one that was sent, or their sum."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Aggregation, RewardDefinition
from decider.log.protocol import Mark, NewReward, NewVersion, Tick
from decider.log.sqlite.writer import SqliteLog
from decider.types import START, Time
from tests.conftest import SECOND, Clock, sample_experiment
from tests.test_reward_changes import query
from tests.two_writers import decision

whole = st.integers(-64, 0).map(float)
"""So small that every sum and mean of few is exact."""

sets = st.lists(whole, min_size=1, max_size=8) | st.lists(st.just(0.0), min_size=1, max_size=8)

RIGHT = {
    Aggregation.FIRST: lambda values: values[0],
    Aggregation.LAST: lambda values: values[-1],
    Aggregation.SUM: sum,
    Aggregation.MAX: lambda values: sorted(values)[-1],
    Aggregation.MIN: lambda values: sorted(values)[0],
    Aggregation.MEAN: lambda values: sum(values) / len(values),
}


@pytest.mark.parametrize("aggregation", Aggregation)
@given(values=sets, default=st.sampled_from([-1000.0, -1.0, 0.0, 5.0]))
def test_no_set_of_rewards_counts_as_none(aggregation: Aggregation, values: list[float], default: float) -> None:
    """A maximum that begins at the smallest positive number, or a sum that takes 0 for nothing, would give the default:
    a day of returns would look like a day without visitors."""
    definition = RewardDefinition(default=default, minimum=-1000.0, maximum=5.0, aggregation=aggregation)
    assert final_reward(definition, values) == RIGHT[aggregation](values)
    assert final_reward(definition, []) == default


@settings(max_examples=15)
@given(several=st.lists(sets, min_size=1, max_size=5))
def test_people_and_metrics_see_the_same(several: list[list[float]]) -> None:
    """The view and the totals compute it in SQL, where null, 0 and nothing are easily mixed up."""
    with TemporaryDirectory() as folder:
        path, clock = Path(folder) / "log.db", Clock()
        with closing(SqliteLog(path, clock=clock)) as log:
            expected = []
            for number, aggregation in enumerate(Aggregation, 1):
                reward = RewardDefinition(10 * SECOND, -3.0, {}, -1000.0, 5.0, aggregation)
                log.append([NewVersion(sample_experiment(reward=reward), number)])
                version = log.versions()[-1]
                for index, values in enumerate(several):
                    (mark,) = log.append([decision(version, f"{number}-{index}")])
                    assert mark is not None
                    log.append([NewReward(mark.position, "loss", value) for value in values])
                    expected.append(RIGHT[aggregation](values))
            clock.advance(20)
            log.append([Tick()])
            totals = log.totals(Mark(START, Time(0)), log.head().mark).sealed.values()
        assert [row[0] for row in query(path, "select reward from sealed_decisions order by position")] == expected
        assert sum(one.defaulted for one in totals) == 0
        assert sum(float(one.reward) for one in totals) == pytest.approx(sum(expected))
