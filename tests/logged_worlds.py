"""Logs of worlds with known means, as columns: what the tests of the evaluation are held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.logs.columns import Category, Columns, Floats, Longs

SEGMENTS = ("new", "regular", "vip", "bargain")
DEVICES = ("phone", "desktop", "tablet")
ACTIONS = ("sale", "outfit", "shipping", "none", "gift")


@dataclass(frozen=True)
class LoggedWorld:
    """A log and its truth. means: (n, actions) of each decision's context."""

    columns: Columns
    means: Floats

    def value(self, pmf: Floats) -> float:
        """The true mean reward of a policy with this (n, actions) pmf, in the contexts of the log."""
        return float((pmf * self.means).sum(axis=1).mean())


def means_of(segment: Longs, device: Longs) -> Floats:
    """(n, actions): every segment likes another action, phones like the sale a little more."""
    base = np.full((len(segment), len(ACTIONS)), 0.1)
    base[np.arange(len(segment)), segment] += 0.25
    base[:, 0] += 0.05 * (device == 0)
    return base


def logged_world(
    *, seed: int, decisions: int = 2_000, epsilon: float = 0.3, repeats: int = 1, with_pmf: bool = True
) -> LoggedWorld:
    """Epsilon-greedy logging around `outfit` on desktops and `sale` elsewhere; each unit comes `repeats` times."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(-(-decisions // repeats)), repeats)[:decisions]
    segment = rng.integers(0, len(SEGMENTS), decisions)
    device = rng.integers(0, len(DEVICES), decisions)
    means = means_of(segment, device)
    pmf = np.full((decisions, len(ACTIONS)), epsilon / len(ACTIONS))
    pmf[np.arange(decisions), np.where(device == 1, 1, 0)] += 1 - epsilon
    action = (pmf.cumsum(axis=1) < rng.random((decisions, 1))).sum(axis=1).astype(np.int32)
    reward = (rng.random(decisions) < means[np.arange(decisions), action]).astype(np.float64)
    time = np.arange(decisions, dtype=np.int64) * 1_000_000
    columns = Columns(
        name=f"world {seed}",
        actions=ACTIONS,
        action=action,
        propensity=pmf[np.arange(decisions), action],
        reward=reward,
        reward_range=(0.0, 1.0),
        time=time,
        known=time + 10_000_000,
        unit=unit,
        fields={
            "segment": Category(segment.astype(np.int32), SEGMENTS),
            "device": Category(device.astype(np.int32), DEVICES),
        },
        sets=(tuple(range(len(ACTIONS))),),
        eligible=np.zeros(decisions, np.int32),
        pmf=pmf.reshape(-1).astype(np.float32) if with_pmf else None,
        baseline=0,
    )
    return LoggedWorld(columns, means)
