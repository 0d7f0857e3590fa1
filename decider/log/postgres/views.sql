-- What people, the learner and the metrics read: the same words as in sqlite/views.sql, which says what they mean. Made
-- anew by migrations.py whenever this file has changed.

create view entries as
  select position, time, 'experiment' as kind from experiments
  union all select position, time, 'version_note' from version_notes
  union all select position, time, 'decision' from decisions
  union all select position, time, 'reward' from rewards
  union all select position, time, 'reward_change' from reward_changes
  union all select position, time, 'seal' from seals
  union all select position, time, 'unit_reward' from unit_rewards
  union all select position, time, 'link' from links
  union all select position, time, 'leave_out' from leave_outs
  union all select position, time, 'activation' from activations
  union all select position, time, 'recall' from recalls
  union all select position, time, 'withheld' from withheld
  union all select position, time, 'serves' from serves
  union all select position, time, 'model' from published
  union all select position, time, 'build' from builds
  union all select position, time, 'tick' from ticks;

-- PostgreSQL's JSON takes no \u0000, which texts of a definition may have: here it is what texts are stored with.
create view changes as
  select to_char(to_timestamp(round(e.time / 1e3) / 1e3) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as changed_at,
    e.experiment, e.number, coalesce(n.author, '') as author, coalesce(n.source, '') as source,
    coalesce(n.note, '') as note,
    lower(replace(replace(replace(e.definition, '\\', '\u005c'), '\u0000', '\u001a0')::json ->> 'state', 'EXPERIMENT_STATE_', '')) as state,
    e.waits, e.position, e.time, null::bigint as sealed_after, null::bigint as sealed_until, null::bigint as made_until,
    null::bigint as replaces
  from experiments e left join version_notes n on n.version = e.position
  union all
  select to_char(to_timestamp(round(l.time / 1e3) / 1e3) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), l.experiment, null,
    coalesce(n.author, l.author), coalesce(n.source, ''), coalesce(n.note, l.reason), null, null, l.position, l.time,
    l.sealed_after, case when l.sealed_until >= -(1::bigint << 61) then l.sealed_until end,
    case when l.sealed_until < -(1::bigint << 61) then l.sealed_until + (1::bigint << 62) end, l.replaces
  from leave_outs l left join version_notes n on n.version = l.position;

create view withheld_actions as
  select w.decision, d.decision_id, d.time, d.unit_id, d.version, e.experiment, r.key as action, r.value as rule
  from withheld w join decisions d on d.position = w.decision join experiments e on e.position = d.version
    cross join lateral json_each_text(w.rules::json) r;

create view decision_windows as
  select d.*, e.experiment, e.number as experiment_version, e."window", e.default_reward, e.minimum_reward,
    e.maximum_reward, e.aggregation, coalesce(s.time + 1, d.time + e."window") as deadline,
    d.time + e."window" as window_end, s.position as seal,
    a.action is not null as overridden, a.position is not null as activated, a.action as shown,
    a.position is null and e.needs_activation as left_out
  from decisions d join experiments e on e.position = d.version left join seals s on s.decision = d.position
    left join activations a on a.decision = d.position
      and case when s.position is null then a.time < d.time + e."window" else a.position < s.position end;

create view decision_rewards as
  select w.*, r.position as reward_position, r.time as reward_time, r.name, r.value, r.weight, r.reward_id,
    r.occurred_at, case when w.seal is null then r.time < w.deadline else r.position < w.seal end as joined,
    c.position as changed_at, case when c.position is null then r.value else c.value end as in_force,
    case when case when w.seal is null then r.time < w.deadline else r.position < w.seal end
      then case when c.position is null then r.value else c.value end * r.weight end as reward
  from decision_windows w left join rewards r on r.decision = w.position
    left join lateral (select l.position, l.value from reward_changes l where l.reward = r.position
        and case when w.seal is null then l.time < w.deadline else l.position < w.seal end
      order by l.position desc limit 1) c on true;

create view joined_rewards as
  select reward_position as position, reward_time as time, decision_id, position as decision, version, experiment, name,
    value, weight, reward_id, occurred_at, joined,
    case when not joined then 'late'
      when value * weight between minimum_reward and maximum_reward then 'joined' else 'clipped' end as outcome,
    (reward_time - time) / 1e6::double precision as delay_seconds, in_force, changed_at
  from decision_rewards where reward_position is not null;

create view joined_changes as
  select c.position, c.time, w.decision_id, w.position as decision, w.version, w.experiment, r.name, c.value, r.weight,
    r.reward_id, c.occurred_at, c.reward,
    case when w.seal is null then c.time < w.deadline else c.position < w.seal end as joined,
    case when case when w.seal is null then c.time >= w.deadline else c.position > w.seal end then 'late'
      when c.value is null then 'retracted' else 'corrected' end as outcome,
    (c.time - w.time) / 1e6::double precision as delay_seconds
  from reward_changes c join rewards r on r.position = c.reward join decision_windows w on w.position = c.decision;

create view reward_history as
  select decision_id, experiment, name, reward_id, position, time, outcome, value, weight, occurred_at, delay_seconds,
    position as reward
  from joined_rewards
  union all
  select decision_id, experiment, name, reward_id, position, time, outcome, value, weight, occurred_at, delay_seconds,
    reward
  from joined_changes;

create view credited_rewards as
  select u.position as unit_reward, u.time, u.unit_id, u.experiment as for_experiment, u.name, u.value, u.reward_id,
    j.position as reward, j.decision_id, j.decision, j.experiment, j.outcome, j.in_force, j.delay_seconds
  from unit_rewards u left join joined_rewards j on j.position > u.position and j.position <= u.last;

create view named_rewards as
  select position, decision_id, experiment, experiment_version, version, unit_id, action, propensity, reason, name,
    count(*) as rewards, sum(in_force) as value, sum(reward) as reward
  from decision_rewards where reward is not null
  group by position, decision_id, experiment, experiment_version, version, unit_id, action, propensity, reason, name;

create view reward_summary as
  select experiment, action, name, count(*) as decisions, sum(rewards)::bigint as rewards, sum(value) as value,
    sum(reward) as reward
  from named_rewards group by experiment, action, name;

create view sealed_decisions as
  select w.position, w.time, w.version, w.decision_id, w.experiment, w.experiment_version,
    to_char(to_timestamp(round(w.time / 1e3) / 1e3) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as decided_at,
    w.unit_id, w.segment, w.device, w.channel, w.location, w.intent_stage, w.features, w.action, w.propensity, w.reason,
    w.model, w.deadline, w.window_end, w.seal, w.overridden, w.activated, w.shown, w.left_out, r.rewards,
    greatest(w.minimum_reward, least(w.maximum_reward, coalesce(r.reward, w.default_reward))) as reward
  from decision_windows w cross join lateral (
    select count(j.reward) as rewards, case w.aggregation
        when 'first' then (array_agg(j.reward order by j.reward_position) filter (where j.reward is not null))[1]
        when 'last' then (array_agg(j.reward order by j.reward_position desc) filter (where j.reward is not null))[1]
        when 'sum' then sum(j.reward order by j.reward_position)
        when 'max' then max(j.reward)
        when 'min' then min(j.reward)
        when 'mean' then avg(j.reward)
      end as reward
    from decision_rewards j where j.position = w.position) r
  where w.deadline <= (select time from head);

create view rewarded_decisions as
  select w.position, w.version, w.experiment, w.action, w.reason, w.propensity, w.window_end, w.overridden, w.left_out,
    r.rewards, greatest(w.minimum_reward, least(w.maximum_reward, coalesce(r.reward, w.default_reward))) as reward,
    greatest(w.minimum_reward, least(w.maximum_reward, w.default_reward)) as unrewarded
  from (
    select j.position, count(j.reward) as rewards, case min(j.aggregation)
        when 'first' then (array_agg(j.reward order by j.reward_position) filter (where j.reward is not null))[1]
        when 'last' then (array_agg(j.reward order by j.reward_position desc) filter (where j.reward is not null))[1]
        when 'sum' then sum(j.reward order by j.reward_position)
        when 'max' then max(j.reward)
        when 'min' then min(j.reward)
        when 'mean' then avg(j.reward)
      end as reward
    from decision_rewards j where j.reward_position is not null and j.deadline <= (select time from head)
    group by j.position) r
  join decision_windows w on w.position = r.position;

create view action_sums as
  with ended as (
    select w.version, w.action, w.propensity, w.reason in ('EXPLOIT', 'EXPLORE') as drawn,
      greatest(w.minimum_reward, least(w.maximum_reward, w.default_reward)) as unrewarded
    from decision_windows w
    where w.window_end <= (select time from head) and not w.overridden and not w.left_out)
  select version, action, count(*) as decisions, count(*) filter (where drawn) as drawn, sum(propensity) as propensity,
    coalesce(sum(1 / propensity) filter (where drawn), 0) as inverse,
    coalesce(sum(1 / (propensity * propensity)) filter (where drawn), 0) as squared, 0::bigint as rewarded,
    sum(unrewarded) as reward, coalesce(sum(unrewarded / propensity) filter (where drawn), 0) as weighted,
    coalesce(sum(unrewarded * unrewarded / (propensity * propensity)) filter (where drawn), 0) as weighted_squared
  from ended group by version, action
  union all
  select version, action, 0, 0, 0, 0, 0, count(*) filter (where rewards > 0), sum(reward - unrewarded),
    sum(q * (reward - unrewarded)), sum(q * q * (reward * reward - unrewarded * unrewarded))
  from (select version, action, rewards, reward, unrewarded,
      case when reason in ('EXPLOIT', 'EXPLORE') then 1 / propensity else 0 end as q
    from rewarded_decisions where window_end <= (select time from head) and not overridden and not left_out) r
  group by version, action;

create view action_summary as
  select experiment, action, sealed, rewarded, weighted_mean_reward,
    case when is_known then weighted_mean_reward - width end as low_95_any_time,
    case when is_known then weighted_mean_reward + width end as high_95_any_time,
    effective_sample_size, mean_propensity, confounded_mean_reward
  from (
    select *, sqrt(greatest(variance, 0) * 2 * (draws * rho + 1) / nullif(draws * draws * rho, 0)
        * ln(sqrt(draws * rho + 1) / alpha)) as width,
      effective_sample_size >= 30 and weighted * weighted >= 50 * weighted_squared and weighted_squared > 0 as is_known
    from (
      select *, (-2 * ln(alpha) + ln(1 - 2 * ln(alpha))) / 1e4::double precision as rho,
        weighted_squared / nullif(draws, 0) - weighted_mean_reward * weighted_mean_reward as variance
      from (
        select experiment, action, sealed, rewarded, weighted, weighted_squared, draws::double precision as draws,
          0.05::double precision / actions as alpha,
          case when drawn > 0 then weighted / draws::double precision end as weighted_mean_reward,
          case when drawn > 0 then inverse * inverse / squared end as effective_sample_size,
          propensity / sealed as mean_propensity, reward / sealed as confounded_mean_reward
        from (
          select e.experiment, s.action, sum(s.decisions)::bigint as sealed, sum(s.rewarded)::bigint as rewarded,
            sum(s.drawn) as drawn, sum(s.propensity) as propensity, sum(s.inverse) as inverse,
            sum(s.squared) as squared, sum(s.reward) as reward, sum(s.weighted) as weighted,
            sum(s.weighted_squared) as weighted_squared,
            sum(sum(s.drawn)) over (partition by e.experiment) as draws,
            count(*) over (partition by e.experiment) as actions
          from action_sums s join experiments e on e.position = s.version
          group by e.experiment, s.action having sum(s.decisions) > 0) a) b) c) d;

create view holdout_summary as
  select experiment, experiment_version, "group", sum(decisions)::bigint as decisions, count(*) as units,
    sum(reward) / sum(decisions)::double precision as mean_reward,
    sqrt(greatest(0, sum(reward * reward)
      - 2 * sum(reward) / sum(decisions)::double precision * sum(reward * decisions)
      + sum(reward) / sum(decisions)::double precision * sum(reward) / sum(decisions)::double precision
        * sum(decisions * decisions)::double precision)
      * count(*) / nullif(count(*) - 1, 0)) / sum(decisions)::double precision as standard_error
  from (
    select w.experiment, w.experiment_version, case when (w.reason = 'HOLDOUT') then 'holdout' else 'policy' end as "group",
      count(*) as decisions,
      sum(coalesce(r.reward, greatest(w.minimum_reward, least(w.maximum_reward, w.default_reward)))) as reward
    from experiments e join decision_windows w on w.version = e.position
      left join rewarded_decisions r on r.position = w.position
    where (replace(replace(e.definition, '\\', '\u005c'), '\u0000', '\u001a0')::json ->> 'holdout')::double precision > 0
      and w.window_end <= (select time from head) and w.reason <> 'HOLDOUT_UNAVAILABLE' and not w.left_out
    group by w.version, w.experiment, w.experiment_version, w.unit_id, w.reason = 'HOLDOUT') u
  group by experiment, experiment_version, "group";
