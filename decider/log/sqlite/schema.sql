-- The log. One total order: every entry of every table has its own `position`, from 1 and without gaps, and a `time`
-- (microseconds since 1970, UTC) that never decreases along it. Rows of entries are only ever added.
-- Split into statements at empty lines; run by migrations.py. The views are in views.sql.

-- The end of the log, one row: every commit takes it, and deals position and time from it.
create table head (
  position integer not null,            -- of the last entry
  time integer not null,
  chain blob not null,                  -- checksum over all commits up to here: see chain.py
  refused integer not null              -- checksum over refused_rewards and early_activations
);

insert into head (position, time, chain, refused) values (0, 0, x'', 0);

-- Ends of commits with the chain there, so that damage can be located. All rows of a commit have the same time, so that
-- a commit ends where the time changes; where the next one has the same time, a mark tells them apart.
create table marks (
  position integer primary key,
  chain blob not null
);

create trigger leave_mark before update of position on head
when 0 < old.position and old.position < new.position
  and (old.time = new.time or old.position / 1024 < new.position / 1024) begin
  insert into marks (position, chain) values (old.position, old.chain);
end;

-- One row in a log from before the chain: up to this position it was computed at that time, not when it was written.
create table chain_start (
  position integer not null,
  at integer not null                   -- wall clock, microseconds since 1970
);

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
  waits integer not null default 0,     -- 1: does not serve before an entry in `serves` says so
  unique (experiment, number)
);

-- Who made a version or a row of `leave_outs`, as the caller said, whence it came, and why. Just behind it, in its
-- commit; no row where nothing of it is known.
create table version_notes (
  position integer primary key,
  time integer not null,
  version integer not null unique,      -- experiments.position, or leave_outs.position
  author text not null,                 -- empty: not said; so for the next two
  source text not null,                 -- api, file NAME, command NAME, server
  note text not null
);

-- So that the views need not read a definition for each decision.
create index versions_that_need_activation on experiments (position)
where case when json_valid(definition) then json_extract(definition, '$.activation') end = 'ACTIVATION_REQUIRED';

-- From here on a version that waited for its model serves.
create table serves (
  position integer primary key,
  time integer not null,
  version integer not null unique       -- experiments.position
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
  model integer not null,               -- the position that the model had learned up to
  build integer                         -- builds.position: who wrote it; null: not said
);

create index decisions_by_version on decisions (version, time);

-- A commit of new decisions is one statement, whose last row is no decision: at position 0 it says how the head moves.
-- `version` is the new position, `decision_id` the chain before, `unit_id` the chain afterwards; it is not stored. With
-- four statements a commit would wait for the interpreter four times as often while the server learns.
create trigger move_head before insert on decisions when new.position = 0 begin
  update head set position = new.version, time = new.time, chain = new.unit_id where chain = new.decision_id;
  select raise(abort, 'another writer has moved the head') where changes() = 0;
  select raise(ignore);
end;

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

-- What was sent under a reward_id is worth something else from here on, or nothing. Of those before the window ends the
-- last one counts. A change of an id that had not come has made the reward's row as well, just before its own.
create table reward_changes (
  position integer primary key,
  time integer not null,
  decision integer not null,            -- decisions.position
  reward integer not null,              -- rewards.position
  value real,                           -- in place of the one that was sent; null: retracted
  occurred_at integer                   -- microseconds since 1970, as sent
);

create index changes_of_reward on reward_changes (reward);

-- A change is known by its content: sent again, it is the same one.
create unique index reward_changes_once
on reward_changes (reward, ifnull(value, 'retracted'), ifnull(occurred_at, 'now'));

-- Decisions that a final reward, or a final change of one, has sealed before their window was over: from the next
-- microsecond on. Written in the same transaction, just behind it: what lies before the seal counts.
create table seals (
  position integer primary key,
  time integer not null,
  decision integer not null unique,
  version integer not null              -- of the decision
);

create index seals_by_version on seals (version, time, decision);

-- Rewards that named a unit, as they were sent. What was credited follows just behind, up to `last`.
create table unit_rewards (
  position integer primary key,
  time integer not null,
  unit_id text not null,
  experiment text,                      -- the only one that it was for; null: any
  name text not null,
  value real not null,
  reward_id text,
  occurred_at integer,                  -- microseconds since 1970, as sent
  last integer not null                 -- position of the last reward or seal that belongs to it; its own: none does
);

create unique index unit_rewards_once on unit_rewards (unit_id, reward_id);

-- Two units are one person from here on. `persons` says what follows from all links.
create table links (
  position integer primary key,
  time integer not null,
  unit_id text not null,
  same_as text not null
);

create unique index links_once on links (unit_id, same_as);

-- Sealed decisions from which no model learns, from here on; see learn/leave_out.py.
create table leave_outs (
  position integer primary key,
  time integer not null,
  experiment text not null,
  sealed_after integer not null,        -- log time
  sealed_until integer,                 -- log time; null: not known yet; below -2^61: see made_until of view `changes`
  replaces integer unique,              -- position of the one that this takes back; null: none
  author text not null,                 -- empty since it stands in version_notes; so for the next one
  reason text not null
);

create index leave_outs_by_experiment on leave_outs (experiment);

create table activations (
  position integer primary key,
  time integer not null,
  decision integer not null unique,
  action text                           -- shown in place of the drawn one; null: the drawn one was shown
);

-- From which entries the history of a decision's unit was read, where its experiment has features of it.
create table recalls (
  position integer primary key,
  time integer not null,
  decision integer not null unique,     -- decisions.position
  seen_after integer not null,          -- those behind this position: the log began there
  seen_until integer not null,          -- up to this one
  seen_time integer not null            -- log time of the reading
);

-- The decisions of each unit that have a row in `recalls`, so that its history is found without a look at others. Not
-- part of the order: they follow from it.
create table unit_decisions (
  experiment text not null,
  unit_id text not null,
  decision integer not null,            -- decisions.position
  primary key (experiment, unit_id, decision)
) without rowid;

create trigger keep_unit_decision after insert on recalls begin
  insert into unit_decisions (experiment, unit_id, decision)
  select e.experiment, d.unit_id, d.position from decisions d join experiments e on e.position = d.version
  where d.position = new.decision;
end;

-- What rules took out of the actions that the call of a decision allowed; no row where that was nothing.
create table withheld (
  position integer primary key,
  time integer not null,
  decision integer not null unique,     -- decisions.position
  rules text not null                   -- JSON object: action id to the field of the experiment that holds the rule
);

-- Activations whose decision is not there yet: no entries. The commit that writes the decision deletes the row and
-- writes the activation. Bounded in number, and for a time: see early.py.
create table early_activations (
  id integer primary key,               -- counts up; the smallest go first
  decision_id text not null unique,
  action text,                          -- as sent; null: the drawn one
  time integer not null
);

-- So that a commit of new decisions need not look: only where one of them was activated before it fails and is written
-- in another way.
create trigger activated_before before insert on decisions
when exists (select 1 from early_activations where decision_id = new.decision_id) begin
  select raise(abort, 'an activation came before its decision');
end;

-- From here on a model may serve. Every model that ever served has its row, whether its data is stored or not.
create table published (
  position integer primary key,
  time integer not null,
  experiment text not null,
  signature integer not null,           -- signatures.id
  model integer not null,               -- the position that the model has learned up to
  learned integer not null,             -- decisions, by the process that published it
  unique (experiment, signature, model)
);

-- What makes models: the arguments, the encoder and the version of the learning code. Long, and few.
create table signatures (
  id integer primary key,
  signature text not null unique
);

-- Who writes: one row for every start of a server.
create table builds (
  position integer primary key,
  time integer not null,
  build text not null                   -- JSON: versions of everything that decides
);

-- Entries that only say that time has passed: they close windows when nothing else happens.
create table ticks (
  position integer primary key,
  time integer not null
);

-- Rewards that were refused, counted; nothing else of them is kept.
create table refused_rewards (
  name text not null,
  outcome text not null,                -- duplicate, orphan, no_decision, out_of_range, undeclared; late: of an archived decision
  count integer not null,
  primary key (name, outcome)
) without rowid;

-- Stored models, in pieces, so that storing one never holds up a commit for long. Not part of the order: they follow
-- from it. A model with a piece missing or another checksum counts as not stored.
create table models (
  experiment text not null,
  signature text not null,
  position integer not null,            -- learned up to here
  part integer not null,                -- from 0
  parts integer not null,
  created integer not null,             -- wall clock, microseconds since 1970
  checksum text not null,               -- sha256 of all pieces together
  data blob not null,
  primary key (experiment, signature, position, part)
);

-- The versions that may have decisions whose window is not over: every decision with a deadline beyond `closed_until`
-- has its version here. So nobody has to look at the versions that are over, however many there are.
create table open_versions (
  version integer primary key,          -- experiments.position
  experiment text not null
);

create index open_versions_by_experiment on open_versions (experiment);

create table closed_until (
  id integer primary key,               -- 1: there is one row
  time integer not null
);

insert into closed_until (id, time) values (1, 0);

create trigger open_version after insert on decisions
when not exists (select 1 from open_versions where version = new.version) begin
  insert into open_versions (version, experiment)
  select position, experiment from experiments where position = new.version;
end;

-- The decisions that units keep, while they do. Not part of the order: an assignment is written with its decision.
create table assignments (
  experiment text not null,
  unit_id text not null,
  until integer not null,               -- log time from which it counts no longer
  decision integer not null,            -- decisions.position
  primary key (experiment, unit_id)
) without rowid;

-- Checksums over tables that entries alone do not explain: a row that is missing or too many shows here. No trigger
-- counts them, since it would count whoever takes a row away, too.
create table row_sums (
  name text primary key,                -- of the table
  sum integer not null                  -- persons: see units.py; assignments: of the positions of their decisions
) without rowid;

insert into row_sums (name, sum) values ('persons', 0), ('assignments', 0);

-- Which units are one person. Not part of the order: it follows from the links, and stays when they are archived.
create table persons (
  unit_id text primary key,
  person integer not null               -- the same for all units of a person
) without rowid;

create index units_of_persons on persons (person);

-- So that the trigger need not read a definition for each decision.
create index versions_with_attribution on experiments (position)
where case when json_valid(definition) then json_extract(definition, '$.reward.attribution') end is not null;

-- The decisions to which a reward by unit may be credited, while their windows are open. Not part of the order.
create table creditable_decisions (
  unit_id text not null,
  decision integer not null,            -- decisions.position
  until integer not null,               -- log time at which its window ends
  primary key (unit_id, decision)
) without rowid;

create index creditable_decisions_by_end on creditable_decisions (until);

create trigger keep_creditable_decision after insert on decisions
when exists (select 1 from experiments indexed by versions_with_attribution where position = new.version
  and case when json_valid(definition) then json_extract(definition, '$.reward.attribution') end is not null) begin
  insert into creditable_decisions (unit_id, decision, until)
  select new.unit_id, new.position, new.time + window from experiments where position = new.version;
end;

create index assignments_by_end on assignments (until);

-- What counts for caps and daily budgets: see exposures.py. Not part of the order: it follows from decisions and
-- activations, and is written with them. Only of experiments with limits.
create table exposures (
  decision integer primary key,         -- decisions.position
  experiment text not null,
  unit_id text not null,                -- empty: forgotten
  action text not null,                 -- shown, as far as the log knows
  kind text not null,
  time integer not null,                -- of the decision
  until integer not null,               -- log time from which it counts for no cap
  reserved_until integer,               -- log time from which it counts for nothing, not activated; null: it counts
  day_begin integer,                    -- of its daily budget; null: it has none
  day_end integer
);

create index exposures_by_action on exposures (unit_id, experiment, action, time);

create index exposures_by_kind on exposures (unit_id, experiment, kind, time);

create index exposures_by_end on exposures (until);

create index exposures_by_reservation on exposures (reserved_until) where reserved_until is not null;

create trigger count_as_shown after insert on activations when new.action is null begin
  update exposures set reserved_until = null where decision = new.decision and reserved_until > new.time;
end;

create trigger end_reservation after insert on seals begin
  update exposures set reserved_until = new.time where decision = new.decision and reserved_until > new.time;
end;

create table daily_counts (
  experiment text not null,
  day_end integer not null,
  day_begin integer not null,
  action text not null,
  count integer not null,               -- exposures, with reservations
  primary key (experiment, day_end, day_begin, action)
) without rowid;

create index daily_counts_by_end on daily_counts (day_end);

-- Every action that an experiment ever had, with its kind: an id is never reused for another one.
create table action_kinds (
  experiment text not null,
  action text not null,
  kind text not null,
  primary key (experiment, action)
) without rowid;

create trigger keep_kinds after insert on experiments when json_valid(new.definition) begin
  insert into action_kinds (experiment, action, kind)
  select new.experiment, json_extract(value, '$.id'), coalesce(json_extract(value, '$.kind'), 'content')
  from json_each(new.definition, '$.actions') where true
  on conflict (experiment, action) do update set kind = excluded.kind;
end;

-- Parts of the log that `decider archive` has moved out of it; a part counts from its row here on. Rows only added.
create table archives (
  last integer primary key,             -- position of the last entry in the part
  first integer not null,
  time integer not null,                -- of the last entry
  path text not null,                   -- of the part's folder, absolute, as it was written
  digest text not null                  -- of its part.json
);

-- One row once a part counts: the log begins behind it. What lies up to there and is not kept is deleted in pieces.
create table cut (
  position integer not null,            -- of the last entry of the last part
  time integer not null,
  chain blob not null,                  -- there
  counted integer not null,             -- totals must be stored up to here before entries are deleted
  sealed integer not null,              -- log time by which all windows of archived decisions were over
  remember integer not null,            -- microseconds of log time for which a retry gets an archived decision
  digest text not null,                 -- over the rows that stay: see archived.py
  archived integer not null             -- checksum over archived_decisions
);

-- Experiments with decisions in an archive.
create table archived_experiments (
  experiment text primary key,
  decisions integer not null,           -- in all parts
  complete_after integer not null       -- what was sealed up to this time must be read from the archive to be learned
);

-- Times of archived entries up to which a model has learned that is still named.
create table archived_times (
  position integer primary key,
  time integer not null
);

-- Rows of `published` up to the cut that stay.
create table kept_models (
  position integer primary key
);

-- Archived decisions that are still needed: to learn from them, or because a retry may come. Their final rewards are
-- with them.
create table archived_decisions (
  position integer primary key,
  time integer not null,
  version integer not null,
  decision_id text not null unique,
  unit_id text not null,
  segment text,
  device text,
  channel text,
  location text,
  intent_stage text,
  features text,
  eligible text,
  action_features text,
  pmf text not null,
  action text not null,
  propensity real not null,
  reason text not null,
  model integer not null,
  build integer,
  experiment text not null,
  deadline integer not null,
  overridden integer not null,
  activated integer not null,
  shown text,                           -- in place of the drawn one; null: none was
  rewards text not null,                -- JSON list of those in time, in the order of arrival: [name, value in force,
                                        -- weight]; older releases wrote value x weight
  input integer not null,               -- 1: of a version that learns; older releases: it is learned from
  remember_until integer not null       -- log time up to which a retry gets it
);

create index archived_decisions_by_deadline on archived_decisions (experiment, deadline);

-- Models from which learning and replay go on behind the cut, one for each experiment and signature that is needed.
create table bases (
  experiment text not null,
  signature text not null,
  position integer not null,            -- learned up to here; 0: nothing, and no data
  time integer not null,
  checksum text not null,
  primary key (experiment, signature)
);

-- Their data in pieces; pieces of a position that `bases` does not name do not count.
create table base_pieces (
  experiment text not null,
  signature text not null,
  position integer not null,
  part integer not null,                -- from 0
  data blob not null,
  primary key (experiment, signature, position, part)
);

-- Archived decisions take no more rewards and activations, also from a writer that looked them up before.
create trigger no_late_reward before insert on rewards when new.decision <= (select position from cut) begin
  select raise(ignore);
end;

-- A purchase counts once in an experiment: one with the id and name of a reward by unit of the person, which was credited
-- in the same experiment, is refused, whichever decision it names; an empty name is any. What a reward by unit credits stands up to its `last`:
-- `cross join` begins there, and not with all decisions of the experiment.
create trigger counted_by_unit before insert on rewards
when new.reward_id is not null and exists (select 1 from unit_rewards) begin
  select raise(ignore) from decisions d join experiments e on e.position = d.version
    join unit_rewards u on u.reward_id = new.reward_id and (new.name = '' or u.name in (new.name, ''))
      and u.last < new.position
      and u.unit_id in (select d.unit_id union all select p.unit_id from persons p
        where p.person = (select person from persons where unit_id = d.unit_id))
  where d.position = new.decision and exists (
    select 1 from rewards r cross join decisions c on c.position = r.decision
      cross join experiments ce on ce.position = c.version
    where r.position > u.position and r.position <= u.last and ce.experiment = e.experiment);
end;

create trigger no_late_activation before insert on activations when new.decision <= (select position from cut) begin
  select raise(ignore);
end;

-- The metrics' totals up to a place, so that a start need not count the whole log; the newest two. Not part of the
-- order: they follow from it. Those that are kept do not, once entries up to there are archived and deleted.
create table totals_checkpoints (
  position integer primary key,         -- entries are counted up to here
  time integer not null,                -- seals up to here; not before that entry
  chain blob not null,                  -- of the log, at that entry
  format integer not null,              -- of the content
  kept integer not null,                -- 1: entries up to here may be gone
  content text not null,                -- JSON: totals by labels; [labels, count] or [labels, n, e] for n * 2^e
  checksum text not null                -- sha256 of all of these
);

-- Decisions by version and action up to a position, so that the view of actions need not read them all. Not part of the
-- order: it follows from the decisions that the log still has. See action_counts.py.
create table action_counts (
  version integer not null,             -- experiments.position
  action text not null,
  drawn integer not null,               -- 1: from a policy's pmf
  decisions integer not null,
  propensity integer not null,          -- sum, in millionths
  inverse integer not null,             -- sum of 1 / propensity, in millionths
  squared integer not null,             -- sum of 1 / propensity^2, in ten thousandths
  primary key (version, action, drawn)
) without rowid;

create table action_counts_until (
  id integer primary key,               -- 1: there is one row
  position integer not null,
  again integer not null                -- the same, so that a change of one of them is found
);

insert into action_counts_until (id, position, again) values (1, 0, 0);

-- The bytes of all stored models, one row.
create table model_bytes (
  bytes integer not null
);

insert into model_bytes (bytes) select coalesce(sum(length(data)), 0) from models;

create trigger count_model_bytes after insert on models begin
  update model_bytes set bytes = bytes + length(new.data);
end;

create trigger discount_model_bytes after delete on models begin
  update model_bytes set bytes = bytes - length(old.data);
end;
