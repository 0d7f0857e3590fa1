-- The log. One total order: every entry of every table has its own `position`, from 1, and a `time`
-- (microseconds since 1970, UTC) that never decreases along it. Rows are only ever added.
-- Split into statements at empty lines; run by migrations.py.

-- Every applied version of every experiment.
create table experiments (
  position integer primary key,
  time integer not null,
  experiment text not null,
  number integer not null,              -- version, counted from 1 for each experiment
  definition text not null,             -- decider.v1.Experiment as JSON, complete
  window integer not null,              -- microseconds
  default_reward real not null,
  minimum_reward real not null,
  maximum_reward real not null,
  aggregation text not null,
  unique (experiment, number)
);

create table decisions (
  position integer primary key,
  time integer not null,
  version integer not null,             -- experiments.position
  decision_id text not null unique,
  unit_id text not null,
  segment text,                         -- null: not given; so for the next four
  device text,
  channel text,
  location text,
  intent_stage text,
  features text,                        -- JSON object; null: none
  eligible text,                        -- JSON list of action ids; null: all active ones
  action_features text,                 -- JSON object of objects; null: none
  pmf text not null,                    -- JSON list in the order of the eligible actions, in millionths
  action text not null,
  propensity real not null,
  reason text not null,
  model integer not null                -- the position that the model had learned up to
);

create index decisions_by_version on decisions (version, time);

create table rewards (
  position integer primary key,
  time integer not null,
  decision integer not null,            -- decisions.position
  name text not null,
  value real not null,                  -- as sent
  weight real not null,                 -- of the name, in the decision's experiment version
  reward_id text,
  occurred_at integer                   -- microseconds since 1970, as sent
);

create unique index rewards_once on rewards (decision, reward_id);

create table activations (
  position integer primary key,
  time integer not null,
  decision integer not null unique,
  action text                           -- shown in place of the drawn one; null: the drawn one was shown
);

-- Entries that only say that time has passed: they close windows when nothing else happens.
create table ticks (
  position integer primary key,
  time integer not null
);

-- Rewards that were refused, counted; nothing else of them is kept.
create table refused_rewards (
  name text not null,
  outcome text not null,                -- duplicate or orphan
  count integer not null,
  primary key (name, outcome)
) without rowid;

-- Which build wrote from which position on: one row for every start of a server.
create table builds (
  position integer not null,            -- the log's last entry at that moment
  started integer not null,             -- wall clock, microseconds since 1970
  build text not null                   -- JSON: versions of everything that decides
);

-- Published models. Not part of the order: they follow from it. `data` goes when newer ones are many.
create table models (
  experiment text not null,
  position integer not null,            -- learned up to here
  signature text not null,              -- the arguments and the encoder that made it
  created integer not null,             -- wall clock, microseconds since 1970
  learned integer not null,             -- decisions, by the process that published it
  checksum text not null,               -- sha256 of data
  data blob,
  primary key (experiment, signature, position)
);

create index models_with_data on models (experiment, position) where data is not null;

create view entries as
  select position, time, 'experiment' as kind from experiments
  union all select position, time, 'decision' from decisions
  union all select position, time, 'reward' from rewards
  union all select position, time, 'activation' from activations
  union all select position, time, 'tick' from ticks;

create view log_end as
  select max(position) as position, max(time) as time from (
    select * from (select position, time from experiments order by position desc limit 1)
    union all select * from (select position, time from decisions order by position desc limit 1)
    union all select * from (select position, time from rewards order by position desc limit 1)
    union all select * from (select position, time from activations order by position desc limit 1)
    union all select * from (select position, time from ticks order by position desc limit 1)
  );

-- Rewards with what became of them.
create view joined_rewards as
  select r.position, r.time, d.decision_id, d.position as decision, e.experiment, r.name, r.value, r.weight,
    r.reward_id, case when r.time < d.time + e.window then 'joined' else 'late' end as outcome,
    (r.time - d.time) / 1e6 as delay_seconds
  from rewards r join decisions d on d.position = r.decision join experiments e on e.position = d.version;

-- Decisions whose window is over, with their final reward, as the learner sees them.
create view sealed_decisions as
  select d.position, d.time, d.version, d.decision_id, e.experiment, e.number as experiment_version,
    strftime('%Y-%m-%dT%H:%M:%fZ', d.time / 1e6, 'unixepoch') as decided_at,
    d.unit_id, d.segment, d.device, d.channel, d.location, d.intent_stage, d.features,
    d.action, d.propensity, d.reason, d.model,
    exists (select 1 from activations a where a.decision = d.position and a.action is not null
      and a.time < d.time + e.window) as overridden,
    (select count(*) from rewards r where r.decision = d.position and r.time < d.time + e.window) as rewards,
    max(e.minimum_reward, min(e.maximum_reward, coalesce(
      case e.aggregation
        when 'first' then (select r.value * r.weight from rewards r
          where r.decision = d.position and r.time < d.time + e.window order by r.position limit 1)
        when 'last' then (select r.value * r.weight from rewards r
          where r.decision = d.position and r.time < d.time + e.window order by r.position desc limit 1)
        when 'sum' then (select sum(r.value * r.weight) from rewards r
          where r.decision = d.position and r.time < d.time + e.window)
        when 'max' then (select max(r.value * r.weight) from rewards r
          where r.decision = d.position and r.time < d.time + e.window)
        when 'min' then (select min(r.value * r.weight) from rewards r
          where r.decision = d.position and r.time < d.time + e.window)
        when 'mean' then (select avg(r.value * r.weight) from rewards r
          where r.decision = d.position and r.time < d.time + e.window)
      end, e.default_reward))) as reward
  from decisions d join experiments e on e.position = d.version
  where d.time + e.window <= (select time from log_end);

-- One row an action. The raw mean is confounded: a policy gives an action to those who like it. The weighted mean
-- estimates what the action would earn if everybody got it (inverse propensity, over decisions drawn from a policy):
-- unbiased, but no better than a plain mean of so many draws as effective_sample_size says.
create view action_summary as
  select s.experiment, s.action, count(*) as sealed, sum(s.rewards > 0) as rewarded,
    avg(s.propensity) as mean_propensity, avg(s.reward) as raw_mean_reward,
    sum(case when s.reason in ('EXPLOIT', 'EXPLORE') then s.reward / s.propensity end) * 1.0 / (
      select count(*) from sealed_decisions t
      where t.experiment = s.experiment and t.reason in ('EXPLOIT', 'EXPLORE')) as weighted_mean_reward,
    sum(case when s.reason in ('EXPLOIT', 'EXPLORE') then 1 / s.propensity end)
      * sum(case when s.reason in ('EXPLOIT', 'EXPLORE') then 1 / s.propensity end)
      / sum(case when s.reason in ('EXPLOIT', 'EXPLORE') then 1 / (s.propensity * s.propensity) end)
      as effective_sample_size
  from sealed_decisions s group by s.experiment, s.action;
