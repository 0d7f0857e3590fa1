"""What a log knows of a unit: its newest decisions with what became of them. Called by `reader.py`.

One statement, so that it sees one moment of the log. Its cost is bounded: so many decisions, so many rewards of each.
"""

from __future__ import annotations

from decider.experiment.unit_history import MAX_REWARDS

_HISTORY = f"""
with seen (seen_after, seen_until, seen_time) as materialized ({{seen}})
select s.seen_after, s.seen_until, s.seen_time, d.position, d.time, d.version, d.action, d.channel, a.action as shown,
  a.position is not null as activated, r.position as reward_position, r.time as reward_time, r.name,
  case when c.position is null then r.value else c.value end as value, r.weight, e.time as closed_at
from seen s
left join lateral (
  select u.decision from unit_decisions u
  where u.experiment = %(experiment)s and u.unit_id = %(unit)s and u.decision > s.seen_after
    and u.decision <= s.seen_until
  order by u.decision desc limit %(most)s) newest on true
left join decisions d on d.position = newest.decision and d.time > s.seen_time - %(period)s
left join activations a on a.decision = d.position and a.position <= s.seen_until
left join seals e on e.decision = d.position and e.position <= s.seen_until
left join lateral (
  select f.* from rewards f where f.decision = d.position and f.position <= s.seen_until
  order by f.reward_id nulls first, f.position limit {MAX_REWARDS}) r on true
left join lateral (
  select l.position, l.value from reward_changes l where l.reward = r.position and l.position <= s.seen_until
  order by l.position desc limit 1) c on true
order by d.position, r.position
"""  # noqa: S608 - a number

NOW = _HISTORY.format(seen="select 0::bigint, h.position, greatest(%(at)s::bigint, h.time) from head h")
"""The history as it is; `at` may be later than the last entry."""

THEN = _HISTORY.format(seen="select %(after)s::bigint, %(until)s::bigint, %(at)s::bigint")
"""As it was when somebody has seen it."""

RECALL = "select seen_after, seen_until, seen_time from recalls where decision = %(decision)s"
