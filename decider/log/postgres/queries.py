"""What `reader.py` asks, in SQL."""

from __future__ import annotations

from decider.log.rows import DECISION, PLACE, VERSION

VERSIONS = f"select {VERSION} from experiments"  # noqa: S608 - a constant

DECISIONS = f"select {DECISION.columns} from decisions"  # noqa: S608 - a constant

NEWEST_VERSIONS = """
select position from experiments where experiment = %(experiment)s order by number desc limit %(most)s
"""
ORIGINS = "select version, author, source, note from version_notes where version = any(%(versions)s::bigint[])"

LAST_NEWS = """
select position, greatest((select coalesce(max(position), 0) from experiments),
  (select coalesce(max(position), 0) from serves), (select coalesce(max(position), 0) from published),
  (select coalesce(max(position), 0) from leave_outs)) as last
from head
"""
NEW_VERSIONS = """
select position, experiment, waits from experiments where position > %(after)s and position <= %(until)s
order by position
"""
NEW_SERVES = (
    "select position, version from serves where position > %(after)s and position <= %(until)s order by position"
)

NEW_LEAVE_OUTS = """
select position, experiment from leave_outs where position > %(after)s and position <= %(until)s order by position
"""
NEW_MODELS = """
select p.position, p.experiment, p.model, s.signature from (
  select distinct on (experiment, signature) * from published where position > %(after)s and position <= %(until)s
  order by experiment, signature, position desc) p
join signatures s on s.id = p.signature order by p.position
"""
# All that were ever published: from one owner to the next in the unique key's index, since a log has millions of models
# and a few owners.
NEWEST_MODELS = """
with recursive owners as (
  (select experiment, signature from published order by experiment, signature limit 1)
  union all
  select n.experiment, n.signature from owners o cross join lateral (
    select p.experiment, p.signature from published p
    where (p.experiment, p.signature) > (o.experiment, o.signature) order by p.experiment, p.signature limit 1) n
)
select p.position, p.experiment, p.model, s.signature
from owners o cross join lateral (
    select * from published p where p.experiment = o.experiment and p.signature = o.signature
    order by p.model desc limit 1) p
  join signatures s on s.id = p.signature
where p.position > %(after)s and p.position <= %(until)s order by p.position
"""
LEAVE_OUTS = """
select l.position, l.time, l.experiment, sealed_after, sealed_until, replaces, coalesce(n.author, l.author) as author,
  coalesce(n.source, '') as source, coalesce(n.note, l.reason) as note
from leave_outs l left join version_notes n on n.version = l.position
where l.experiment = %(experiment)s order by l.position
"""
SHOWN = """
select d.position, d.time, d.version, d.unit_id, d.action, d.action_features,
  a.position as activation, a.time as activated_at, a.action as shown, s.position as seal, s.time as sealed_at
from experiments e join decisions d on d.version = e.position left join seals s on s.decision = d.position
  left join activations a on a.decision = d.position and (s.position is null or a.position < s.position)
where e.has_limits order by d.position
"""
PLACES = f"select {PLACE.columns} from decisions where decision_id = any(%(ids)s::text[])"  # noqa: S608 - a constant

REWARD = "select position, name, weight from rewards where decision = %(decision)s and reward_id = %(id)s"

SEALS = """
select decision, position from seals where decision = any(%(decisions)s::bigint[]) and position <= %(until)s
"""
CLOSED = """
select w.window_end, w.position, w.unit_id, w.reason, exists (
  select 1 from decision_rewards r where r.position = w.position and r.reward is not null) as rewarded
from decisions d join seals s on s.decision = d.position join decision_windows w on w.position = d.position
where d.version = %(version)s and d.time > %(after)s and d.time <= %(until)s and not w.left_out
order by d.position
"""
NEWEST_DECISIONS = """
select decision_id, time, action, reason from decisions where version = %(version)s
order by time desc, position desc limit %(most)s
"""
REWARDS_BETWEEN = """
select position, time, decision_id, name, value, weight, reward_id, outcome, in_force from joined_rewards
where decision_id >= %(first)s and decision_id < %(last)s order by position
"""
NAMED_MODELS = """
select version, coalesce(build, 0), min(model) from decisions where position > %(after)s group by 1, 2 order by 1, 2
"""
COUNT = """
select count(*) as count from decisions where %(experiment)s::text is null
  or version in (select position from experiments where experiment = %(experiment)s)
"""
# By version, so that a plan cannot read the decisions of all experiments.
DECIDED = """
select e.position as version, p.count from experiments e cross join lateral (
  select count(*) as count from decisions d
  where d.version = e.position and d.time >= %(after)s and d.time <= %(until)s and d.position > %(first)s
    and d.position <= %(last)s) p
where e.experiment = %(experiment)s and p.count > 0
"""
SEALED_ALIKE = """
select version, reason, activated, overridden, count(*) as count from decision_windows
where experiment = %(experiment)s and deadline <= (select time from head)
group by version, reason, activated, overridden
"""
# For a decision that a final reward has closed, both ends of its window count: to step over those that are closed could
# take long.
FIRST_DEADLINES = """
select experiment, deadline from (
  select e.experiment, least(
    (select d.time + e."window" from decisions d where d.version = e.position and d.time > %(after)s - e."window"
      order by d.time limit 1),
    (select s.time + 1 from seals s where s.version = e.position and s.time >= %(after)s order by s.time limit 1)
  ) as deadline
  from experiments e where %(experiment)s::text is null or e.experiment = %(experiment)s) f
where deadline is not null
"""
SIZES = """
select (select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
    where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r') as database,
  (select coalesce(sum(octet_length(data)), 0)::bigint from models) as models
"""
