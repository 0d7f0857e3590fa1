"""What a log knows of a unit: its newest decisions with what became of them. Called by `reader.py`.

One statement, so that it sees one moment of the log. Its cost is bounded by what it may read: so many decisions, and so
many rewards of each.
"""

from __future__ import annotations

from decider.experiment.unit_history import MAX_REWARDS
from decider.log.sqlite.archived import CUT

# The newest decisions first, then those of the period: so that no older ones are read, however many there are. What was
# not there yet is left out row by row.
_HISTORY = f"""
with seen (seen_after, seen_until, seen_time) as materialized ({{seen}})
select s.seen_after, s.seen_until, s.seen_time, d.position, d.time, d.version, d.action, d.channel, a.action,
  a.position is not null, r.position, r.time, r.name,
  case when c.position is null then r.value else c.value end, r.weight, e.time
from seen s
left join (
  select u.decision from seen s cross join unit_decisions u
  where u.experiment = :experiment and u.unit_id = :unit and u.decision > s.seen_after and u.decision <= s.seen_until
  order by u.decision desc limit :most) newest
left join decisions d on d.position = newest.decision and d.time > s.seen_time - :period
left join activations a on a.decision = d.position and a.position <= s.seen_until
left join seals e on e.decision = d.position and e.position <= s.seen_until
left join rewards r on r.position in (
  select f.position from rewards f indexed by rewards_once
  where f.decision = d.position and f.position <= s.seen_until
  order by f.reward_id, f.position limit {MAX_REWARDS})
left join reward_changes c on c.position = (
  select max(l.position) from reward_changes l indexed by changes_of_reward
  where l.reward = r.position and l.position <= s.seen_until)
order by d.position, r.position
"""  # noqa: S608 - constants

NOW = _HISTORY.format(seen=f"select {CUT}, h.position, max(:at, h.time) from head h")  # noqa: S608 - a constant
"""The history as it is; `:at` may be later than the last entry."""

THEN = _HISTORY.format(seen="select :after, :until, :at")
"""As it was when somebody has seen it."""

RECALL = "select seen_after, seen_until, seen_time from recalls where decision = ?"
