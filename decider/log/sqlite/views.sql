-- What people, the learner, the metrics and the simulator read. "Sealed" is defined here, once: `decision_windows` says
-- when a decision's window ends, `decision_rewards` which rewards came in time; everything else selects from these two.
-- Split into statements at empty lines; made anew by migrations.py whenever this file has changed.

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

-- Every version, and all that models leave out of learning or do not leave out any more: when, by whom, whence and why.
-- Texts of people, to show and not to run. Empty: not known. sealed_after: null for a version; else decisions that were
-- sealed from then to sealed_until, or made up to made_until (both null: not over), are left out, in place of what the
-- entry at `replaces` said.
create view changes as
  select strftime('%Y-%m-%dT%H:%M:%fZ', e.time / 1e6, 'unixepoch') as changed_at, e.experiment, e.number,
    coalesce(n.author, '') as author, coalesce(n.source, '') as source, coalesce(n.note, '') as note,
    lower(replace(case when json_valid(e.definition) then json_extract(e.definition, '$.state') end,
      'EXPERIMENT_STATE_', '')) as state,
    e.waits, e.position, e.time, null as sealed_after, null as sealed_until,
    null as made_until, null as replaces
  from experiments e left join version_notes n on n.version = e.position
  union all select strftime('%Y-%m-%dT%H:%M:%fZ', l.time / 1e6, 'unixepoch'), l.experiment, null,
    coalesce(n.author, l.author), coalesce(n.source, ''), coalesce(n.note, l.reason), null, null, l.position, l.time,
    l.sealed_after, case when l.sealed_until >= -(1 << 61) then l.sealed_until end,
    case when l.sealed_until < -(1 << 61) then l.sealed_until + (1 << 62) end, l.replaces
  from leave_outs l left join version_notes n on n.version = l.position;

-- Every decision with its experiment and the end of its window: once the log's time has come there it is sealed. A final
-- reward ends the window, at the next microsecond; seal: where that is written, behind what counts.
-- activated: it was said in time that something was shown. overridden: that was another action, which stands in `shown`.
-- left_out: its experiment counts only what was activated, and this was not.
-- window_end: of the declared window, final reward or not. Whoever compares or averages takes the decisions whose
-- window_end is reached: of those made later, only the ones with a final reward are sealed, so all seem to be rewarded.
create view decision_windows as
  select d.*, e.experiment, e.number as experiment_version, e.window, e.default_reward, e.minimum_reward,
    e.maximum_reward, e.aggregation, coalesce(s.time + 1, d.time + e.window) as deadline,
    d.time + e.window as window_end, s.position as seal,
    a.action is not null as overridden, a.position is not null as activated, a.action as shown,
    a.position is null and d.version in (
      select n.position from experiments n indexed by versions_that_need_activation
      where case when json_valid(n.definition) then json_extract(n.definition, '$.activation') end
        = 'ACTIVATION_REQUIRED') as left_out
  from decisions d join experiments e on e.position = d.version left join seals s on s.decision = d.position
    left join activations a on a.decision = d.position
      and case when s.position is null then a.time < d.time + e.window else a.position < s.position end;

-- One row for each action that a rule took out of a decision. rule: the field of the experiment that holds it.
create view withheld_actions as
  select w.decision, d.decision_id, d.time, d.unit_id, d.version, e.experiment, r.key as action, r.value as rule
  from withheld w join decisions d on d.position = w.decision join experiments e on e.position = d.version,
    json_each(w.rules) r;

-- Every decision beside each of its rewards, late ones too; one row with nulls where there is none.
-- joined: the reward came in time. value: as sent. in_force: as the last change in time has it, null of a retracted one.
-- reward: what counts of it, null of a late or retracted one.
create view decision_rewards as
  select w.*, r.position as reward_position, r.time as reward_time, r.name, r.value, r.weight, r.reward_id,
    r.occurred_at, case when w.seal is null then r.time < w.deadline else r.position < w.seal end as joined,
    c.position as changed_at, case when c.position is null then r.value else c.value end as in_force,
    case when case when w.seal is null then r.time < w.deadline else r.position < w.seal end
      then case when c.position is null then r.value else c.value end * r.weight end as reward
  from decision_windows w left join rewards r on r.decision = w.position
    left join reward_changes c on c.position = (select max(last.position) from reward_changes last
      where last.reward = r.position
        and case when w.seal is null then last.time < w.deadline else last.position < w.seal end);

-- Rewards with what became of them. outcome: as it was answered; clipped: in time, and outside of the range by itself.
create view joined_rewards as
  select reward_position as position, reward_time as time, decision_id, position as decision, version, experiment, name,
    value, weight, reward_id, occurred_at, joined,
    case when not joined then 'late'
      when value * weight between minimum_reward and maximum_reward then 'joined' else 'clipped' end as outcome,
    (reward_time - time) / 1e6 as delay_seconds, in_force, changed_at
  from decision_rewards where reward_position is not null;

-- Changes of rewards with what became of them. value: null of a retraction. joined: it came in time.
create view joined_changes as
  select c.position, c.time, w.decision_id, w.position as decision, w.version, w.experiment, r.name, c.value, r.weight,
    r.reward_id, c.occurred_at, c.reward,
    case when w.seal is null then c.time < w.deadline else c.position < w.seal end as joined,
    case when case when w.seal is null then c.time >= w.deadline else c.position > w.seal end then 'late'
      when c.value is null then 'retracted' else 'corrected' end as outcome,
    (c.time - w.time) / 1e6 as delay_seconds
  from reward_changes c join rewards r on r.position = c.reward join decision_windows w on w.position = c.decision;

-- What became of each reward, step by step: as it was sent, then each of its changes.
create view reward_history as
  select decision_id, experiment, name, reward_id, position, time, outcome, value, weight, occurred_at, delay_seconds,
    position as reward
  from joined_rewards
  union all
  select decision_id, experiment, name, reward_id, position, time, outcome, value, weight, occurred_at, delay_seconds,
    reward
  from joined_changes;

-- Rewards that named a unit, each beside the decisions that it was credited to; one row with nulls where there was none.
create view credited_rewards as
  select u.position as unit_reward, u.time, u.unit_id, u.experiment as for_experiment, u.name, u.value, u.reward_id,
    j.position as reward, j.decision_id, j.decision, j.experiment, j.outcome, j.in_force, j.delay_seconds
  from unit_rewards u left join joined_rewards j on j.position > u.position and j.position <= u.last;

-- One row for each decision and name of which rewards are in force, whether its window is over or not. value: their sum
-- without the name's weight, reward: with it; neither is cut off at the range.
create view named_rewards as
  select position, decision_id, experiment, experiment_version, version, unit_id, action, propensity, reason, name,
    count(*) as rewards, sum(in_force) as value, sum(reward) as reward
  from decision_rewards where reward is not null
  group by position, name;

-- One row for each experiment, action and name: how many decisions have such rewards in force, how many these are, and
-- what they come to.
create view reward_summary as
  select experiment, action, name, count(*) as decisions, sum(rewards) as rewards, sum(value) as value,
    sum(reward) as reward
  from named_rewards group by experiment, action, name;

-- Decisions whose window is over, with their final reward, as the learner sees them; it leaves out those that are
-- overridden (but see the experiment's `override`) or left_out. Grouped by what people search for;
-- the other columns follow from the position.
create view sealed_decisions as
  select position, time, version, decision_id, experiment, experiment_version,
    strftime('%Y-%m-%dT%H:%M:%fZ', time / 1e6, 'unixepoch') as decided_at,
    unit_id, segment, device, channel, location, intent_stage, features,
    action, propensity, reason, model, deadline, window_end, seal, overridden, activated, shown, left_out,
    count(reward) as rewards,
    max(minimum_reward, min(maximum_reward, coalesce(
      case aggregation
        when 'first' then (select f.reward from decision_rewards f
          where f.position = w.position and f.reward is not null order by f.reward_position limit 1)
        when 'last' then (select l.reward from decision_rewards l
          where l.position = w.position and l.reward is not null order by l.reward_position desc limit 1)
        when 'sum' then sum(reward)
        when 'max' then max(reward)
        when 'min' then min(reward)
        when 'mean' then avg(reward)
      end, default_reward))) as reward
  from decision_rewards w
  where deadline <= (select time from head)
  group by position, time, version, decision_id, experiment;

-- The final rewards of sealed decisions that have any reward, found by their rewards: for sums over a log of millions,
-- of which few are rewarded. `sealed_decisions` defines them; a test holds the two equal. unrewarded: what it would be.
create view rewarded_decisions as
  select position, version, experiment, action, reason, propensity, window_end, overridden, left_out,
    count(reward) as rewards,
    max(minimum_reward, min(maximum_reward, coalesce(
      case aggregation
        when 'sum' then sum(reward)
        when 'max' then max(reward)
        when 'min' then min(reward)
        when 'mean' then avg(reward)
        when 'first' then (select f.reward from decision_rewards f
          where f.position = r.decision and f.reward is not null order by f.reward_position limit 1)
        when 'last' then (select l.reward from decision_rewards l
          where l.position = r.decision and l.reward is not null order by l.reward_position desc limit 1)
      end, default_reward))) as reward,
    max(minimum_reward, min(maximum_reward, default_reward)) as unrewarded
  from (
    select r.decision, w.position, w.version, w.experiment, w.action, w.reason, w.propensity, w.window_end,
      w.overridden, w.left_out, w.aggregation, w.minimum_reward, w.maximum_reward, w.default_reward,
      case when case when w.seal is null then r.time < w.deadline else r.position < w.seal end
      then case when c.position is null then r.value else c.value end * r.weight end as reward
    from rewards r indexed by rewards_once cross join decision_windows w on w.position = r.decision
      left join reward_changes c on c.position = (select max(last.position) from reward_changes last
        where last.reward = r.position
          and case when w.seal is null then last.time < w.deadline else last.position < w.seal end)
    where w.deadline <= (select time from head)) r
  group by decision;

-- Sums over the decisions whose declared window is over, by version and action, in one pass over the decisions and one
-- over the rewards: all decisions are counted as unrewarded, what is still open or does not count is taken out again,
-- and rewards are added. drawn: from a policy's pmf. weighted: reward / propensity of these. What `action_counts` holds
-- is not counted again.
create view action_sums as
  with counted as (
    select c.version, c.action, c.decisions, c.decisions * c.drawn as drawn, c.propensity / 1e6 as propensity,
      c.drawn * c.inverse / 1e6 as inverse, c.drawn * c.squared / 1e4 as squared
    from action_counts c
    union all
    select version, action, count(*), sum(q > 0), sum(abs(q)), total(case when q > 0 then 1 / q end),
      total(case when q > 0 then 1 / (q * q) end)
    from (select version, action, case when reason in ('EXPLOIT', 'EXPLORE') then propensity else -propensity end as q
      from decisions not indexed where position > (select position from action_counts_until))
    group by version, action
    union all
    select version, action, -1, -q, -propensity, -q / propensity, -q / (propensity * propensity)
    from (select *, reason in ('EXPLOIT', 'EXPLORE') as q from decision_windows
      where position in (
        select d.position from experiments e cross join decisions d indexed by decisions_by_version
          on d.version = e.position and d.time > (select time from head) - e.window
        union select decision from activations where action is not null
        union select d.position from experiments n indexed by versions_that_need_activation cross join decisions d
          on d.version = n.position
          where case when json_valid(n.definition) then json_extract(n.definition, '$.activation') end
            = 'ACTIVATION_REQUIRED')
      and (window_end > (select time from head) or overridden or left_out)))
  select c.version, c.action, c.decisions, c.drawn, c.propensity, c.inverse, c.squared, 0 as rewarded,
    c.decisions * e.unrewarded as reward, c.inverse * e.unrewarded as weighted,
    c.squared * e.unrewarded * e.unrewarded as weighted_squared
  from counted c join (
    select position, max(minimum_reward, min(maximum_reward, default_reward)) as unrewarded from experiments) e
    on e.position = c.version
  union all
  select version, action, 0, 0, 0, 0, 0, sum(rewards > 0), sum(reward - unrewarded), sum(q * (reward - unrewarded)),
    sum(q * q * (reward * reward - unrewarded * unrewarded))
  from (select version, action, rewards, reward, unrewarded,
      case when reason in ('EXPLOIT', 'EXPLORE') then 1 / propensity else 0 end as q
    from rewarded_decisions where window_end <= (select time from head) and not overridden and not left_out)
  group by version, action;

-- One row an action, over the decisions that were shown as drawn, as far as the log knows, and whose declared window is
-- over.
-- weighted_mean_reward: what the action would earn if everybody got it (inverse propensity, over decisions drawn from a
-- policy); unbiased, but no better than a plain mean of so many draws as effective_sample_size says. low_95_any_time,
-- high_95_any_time: it lies between them with 95 %, for all actions of the experiment together and however often one
-- looks (an asymptotic confidence sequence: Waudby-Smith and others, 2021, theorem 2.2; tightest at 10,000 draws). They
-- take decisions as independent, so they are too narrow where units come back often. Null below 30 effective draws, and
-- below 50 effective draws that earned something: before, the variance is not known yet, and the interval would leave out
-- the truth in up to 18 of 100 logs (simulated with rewards in .3 to 10 % of the decisions; with it in at most 5).
-- confounded_mean_reward: a policy gives an action to those who like it, so this compares visitors, not actions.
create view action_summary as
  select experiment, action, sealed, rewarded, weighted_mean_reward,
    case when is_known then weighted_mean_reward - width end as low_95_any_time,
    case when is_known then weighted_mean_reward + width end as high_95_any_time,
    effective_sample_size, mean_propensity, confounded_mean_reward
  from (
    select *, sqrt(max(variance, 0) * 2 * (draws * rho + 1) / (draws * draws * rho)
        * ln(sqrt(draws * rho + 1) / alpha)) as width,
      effective_sample_size >= 30 and weighted * weighted >= 50 * weighted_squared and weighted_squared > 0 as is_known
    from (
      select *, (-2 * ln(alpha) + ln(1 - 2 * ln(alpha))) / 1e4 as rho,
        weighted_squared / draws - weighted_mean_reward * weighted_mean_reward as variance
      from (
        select experiment, action, sealed, rewarded, weighted, weighted_squared, draws, 0.05 / actions as alpha,
          case when drawn > 0 then weighted / draws end as weighted_mean_reward,
          case when drawn > 0 then inverse * inverse / squared end as effective_sample_size,
          propensity / sealed as mean_propensity, reward / sealed as confounded_mean_reward
        from (
          select e.experiment, action, sum(decisions) as sealed, sum(rewarded) as rewarded, sum(drawn) as drawn,
            sum(propensity) as propensity, sum(inverse) as inverse, sum(squared) as squared, sum(reward) as reward,
            sum(weighted) as weighted, sum(weighted_squared) as weighted_squared,
            sum(sum(drawn)) over (partition by e.experiment) as draws,
            count(*) over (partition by e.experiment) as actions
          from action_sums s join experiments e on e.position = s.version
          group by e.experiment, action having sum(decisions) > 0))));

-- The control group beside the units that the policy serves, over decisions whose declared window is over, for each
-- version with a holdout: a mean over several versions would compare times. Decisions for which the baseline action was
-- not eligible are in neither.
-- standard_error: of the mean, by unit, since visits of one unit are alike; two of them are good for one look.
create view holdout_summary as
  select experiment, experiment_version, "group", sum(decisions) as decisions, count(*) as units,
    sum(reward) / sum(decisions) as mean_reward,
    sqrt(max(0, total(reward * reward) - 2 * sum(reward) / sum(decisions) * total(reward * decisions)
      + sum(reward) / sum(decisions) * sum(reward) / sum(decisions) * total(decisions * decisions))
      * count(*) / nullif(count(*) - 1, 0)) / sum(decisions) as standard_error
  from (
    select w.experiment, w.experiment_version, case reason when 'HOLDOUT' then 'holdout' else 'policy' end as "group",
      count(*) as decisions,
      sum(coalesce(r.reward, max(w.minimum_reward, min(w.maximum_reward, w.default_reward)))) as reward
    from experiments e cross join decision_windows w on w.version = e.position
      left join (select position, reward from rewarded_decisions) r on r.position = w.position
    where case when json_valid(e.definition) then json_extract(e.definition, '$.holdout') end > 0
      and window_end <= (select time from head) and reason <> 'HOLDOUT_UNAVAILABLE' and not left_out
    group by w.version, unit_id, reason = 'HOLDOUT')
  group by experiment, experiment_version, "group";
