-- The log in PostgreSQL: the same tables of entries, columns and chain as in sqlite/schema.sql, which says what each
-- column means; here stands what differs. Texts sort by their bytes, as in SQLite. Run as one script by migrations.py.

-- The end of the log, one row. Whoever updates it is the queue of all writers: so positions have no gaps, and are visible
-- in order. (A sequence is neither: a later number may commit first, and whoever follows would skip the earlier one.)
create table head (
  position bigint not null,
  time bigint not null,
  chain bytea not null,
  changed bigint not null default 0     -- the newest entry that changes which version of an experiment serves
) with (fillfactor = 10);               -- room in its page: old versions of the row go without a vacuum

insert into head (position, time, chain) values (0, 0, '');

create table marks (
  position bigint primary key,
  chain bytea not null
);

create function leave_mark() returns trigger language plpgsql as $$
begin
  insert into marks (position, chain) values (old.position, old.chain);
  return null;
end $$;

create trigger leave_mark after update of position on head for each row
when (0 < old.position and old.position < new.position
  and (old.time = new.time or old.position / 1024 < new.position / 1024))
execute function leave_mark();

-- One row for each open writer: its last commit. A commit whose answer was lost is sent again with its number; the number
-- tells in that very transaction whether it has been written, also where the lost one is still on its way.
create table writers (
  writer uuid primary key,
  commits bigint not null,              -- number of the last commit
  positions bigint[] not null,          -- what its entries got; null: refused; 0: remembered
  time bigint not null,                 -- of that commit
  opened timestamptz not null default now()
) with (fillfactor = 50);

-- One row. Whoever leads has its epoch; a leader that was replaced has an older one and can publish nothing.
create table lease (
  epoch bigint not null
);

insert into lease (epoch) values (0);

-- One row, once a leader has learned what serves: what it tells the workers of all hosts that is not in the log. See
-- decider/server/board.py.
create table leader_news (
  is_only boolean primary key default true check (is_only),
  epoch bigint not null,
  address text collate "C" not null,
  content text collate "C" not null,
  at timestamptz not null default now()
) with (fillfactor = 10);

create table experiments (
  position bigint primary key,
  time bigint not null,
  experiment text collate "C" not null,
  number bigint not null,
  definition text collate "C" not null,
  "window" bigint not null,
  default_reward double precision not null,
  minimum_reward double precision not null,
  maximum_reward double precision not null,
  aggregation text collate "C" not null,
  waits bigint not null default 0,
  -- What follows of the definition, so that nobody has to read it for each decision; not in the chain.
  needs_activation boolean not null,
  has_attribution boolean not null,
  has_limits boolean not null,
  unique (experiment, number)
);

create table version_notes (
  position bigint primary key,
  time bigint not null,
  version bigint not null unique,
  author text collate "C" not null,
  source text collate "C" not null,
  note text collate "C" not null
);

create table serves (
  position bigint primary key,
  time bigint not null,
  version bigint not null unique
);

create table decisions (
  position bigint primary key,
  time bigint not null,
  version bigint not null,
  decision_id text collate "C" not null unique,
  unit_id text collate "C" not null,
  segment text collate "C",
  device text collate "C",
  channel text collate "C",
  location text collate "C",
  intent_stage text collate "C",
  features text collate "C",
  eligible text collate "C",
  action_features text collate "C",
  pmf text collate "C" not null,
  action text collate "C" not null,
  propensity double precision not null,
  reason text collate "C" not null,
  model bigint not null,
  build bigint
);

create index decisions_by_version on decisions (version, time, position);

create table rewards (
  position bigint primary key,
  time bigint not null,
  decision bigint not null,
  name text collate "C" not null,
  value double precision not null,
  weight double precision not null,
  reward_id text collate "C",
  occurred_at bigint
);

create unique index rewards_once on rewards (decision, reward_id);

create table reward_changes (
  position bigint primary key,
  time bigint not null,
  decision bigint not null,
  reward bigint not null,
  value double precision,
  occurred_at bigint
);

create index changes_of_reward on reward_changes (reward, position);

create unique index reward_changes_once on reward_changes (reward, value, occurred_at) nulls not distinct;

create table seals (
  position bigint primary key,
  time bigint not null,
  decision bigint not null unique,
  version bigint not null
);

create index seals_by_version on seals (version, time, decision);

create table unit_rewards (
  position bigint primary key,
  time bigint not null,
  unit_id text collate "C" not null,
  experiment text collate "C",
  name text collate "C" not null,
  value double precision not null,
  reward_id text collate "C",
  occurred_at bigint,
  last bigint not null
);

create unique index unit_rewards_once on unit_rewards (unit_id, reward_id);

create index unit_rewards_by_id on unit_rewards (reward_id);

create table links (
  position bigint primary key,
  time bigint not null,
  unit_id text collate "C" not null,
  same_as text collate "C" not null
);

create unique index links_once on links (unit_id, same_as);

create table leave_outs (
  position bigint primary key,
  time bigint not null,
  experiment text collate "C" not null,
  sealed_after bigint not null,
  sealed_until bigint,
  replaces bigint unique,
  author text collate "C" not null,
  reason text collate "C" not null
);

create index leave_outs_by_experiment on leave_outs (experiment);

create table activations (
  position bigint primary key,
  time bigint not null,
  decision bigint not null unique,
  action text collate "C"
);

create table recalls (
  position bigint primary key,
  time bigint not null,
  decision bigint not null unique,
  seen_after bigint not null,
  seen_until bigint not null,
  seen_time bigint not null
);

create table withheld (
  position bigint primary key,
  time bigint not null,
  decision bigint not null unique,
  rules text collate "C" not null
);

create table signatures (
  id bigint primary key generated always as identity,
  signature text collate "C" not null
);

-- Signatures are longer than what an index takes.
create unique index signatures_once on signatures (md5(signature));

create table published (
  position bigint primary key,
  time bigint not null,
  experiment text collate "C" not null,
  signature bigint not null,            -- signatures.id
  model bigint not null,
  learned bigint not null,
  unique (experiment, signature, model)
);

create table builds (
  position bigint primary key,
  time bigint not null,
  build text collate "C" not null
);

create table ticks (
  position bigint primary key,
  time bigint not null
);

create table refused_rewards (
  name text collate "C" not null,
  outcome text collate "C" not null,
  count bigint not null,
  primary key (name, outcome)
);

-- What follows from the entries, and is written with them.

create table early_activations (
  id bigint primary key,
  decision_id text collate "C" not null unique,
  action text collate "C",
  time bigint not null
);

create table unit_decisions (
  experiment text collate "C" not null,
  unit_id text collate "C" not null,
  decision bigint not null,
  primary key (experiment, unit_id, decision)
);

create table assignments (
  experiment text collate "C" not null,
  unit_id text collate "C" not null,
  until bigint not null,
  decision bigint not null,
  primary key (experiment, unit_id)
);

create index assignments_by_end on assignments (until);

create table persons (
  unit_id text collate "C" primary key,
  person bigint not null
);

create index units_of_persons on persons (person);

create table creditable_decisions (
  unit_id text collate "C" not null,
  decision bigint not null,
  until bigint not null,
  primary key (unit_id, decision)
);

create index creditable_decisions_by_end on creditable_decisions (until);

create table exposures (
  decision bigint primary key,
  experiment text collate "C" not null,
  unit_id text collate "C" not null,
  action text collate "C" not null,
  kind text collate "C" not null,
  time bigint not null,
  until bigint not null,
  reserved_until bigint,
  day_begin bigint,
  day_end bigint
);

create index exposures_by_action on exposures (unit_id, experiment, action, time);

create index exposures_by_kind on exposures (unit_id, experiment, kind, time);

create index exposures_by_end on exposures (until);

create index exposures_by_reservation on exposures (reserved_until) where reserved_until is not null;

create table daily_counts (
  experiment text collate "C" not null,
  day_end bigint not null,
  day_begin bigint not null,
  action text collate "C" not null,
  count bigint not null,
  primary key (experiment, day_end, day_begin, action)
);

create index daily_counts_by_end on daily_counts (day_end);

create table action_kinds (
  experiment text collate "C" not null,
  action text collate "C" not null,
  kind text collate "C" not null,
  primary key (experiment, action)
);

-- A model is one row: whoever stores it holds up no commit.
create table models (
  experiment text collate "C" not null,
  signature bigint not null,            -- signatures.id
  position bigint not null,
  created bigint not null,
  checksum text collate "C" not null,
  data bytea not null,
  primary key (experiment, signature, position)
);

alter table models alter column data set storage external;  -- it is compressed already

-- The newest models of each owner for the workers of other hosts, until they are stored above: not in the write-ahead
-- log, and empty after a crash, since each is made again from the log.
create unlogged table shared_models (
  experiment text collate "C" not null,
  signature bigint not null,            -- signatures.id
  position bigint not null,
  shared timestamptz not null default now(),
  checksum text collate "C" not null,
  data bytea not null,
  primary key (experiment, signature, position)
) with (autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 1000, toast.autovacuum_vacuum_scale_factor = 0);

alter table shared_models alter column data set storage external;  -- compressing would take longer than sending

create table totals_checkpoints (
  position bigint primary key,
  time bigint not null,
  chain bytea not null,
  format bigint not null,
  content text collate "C" not null,
  checksum text collate "C" not null
);

-- A new decision whose activation came first is written in another way: see EntryWriter. One that a reward by unit can
-- reach is noted. Queries in here see what was committed before this commit got the head.
create function add_decisions() returns trigger language plpgsql as $$
begin
  if exists (select 1 from early_activations e join added a on a.decision_id = e.decision_id) then
    raise exception 'an activation came before its decision';
  end if;
  insert into creditable_decisions (unit_id, decision, until)
  select a.unit_id, a.position, a.time + e."window" from added a join experiments e on e.position = a.version
  where e.has_attribution;
  return null;
end $$;

create trigger add_decisions after insert on decisions referencing new table as added
for each statement execute function add_decisions();

-- A purchase counts once in an experiment: see the trigger counted_by_unit in sqlite/schema.sql.
create function find_credited(decision_ bigint, reward_id_ text, name_ text, before bigint)
returns table (unit_reward bigint, name text, is_own boolean) language sql stable as $$
  select u.position, u.name, u.unit_id = d.unit_id
  from decisions d join experiments e on e.position = d.version
    join unit_rewards u on u.reward_id = reward_id_ and (name_ = '' or u.name in (name_, '')) and u.last < before
      and u.unit_id in (select d.unit_id union all select p.unit_id from persons p
        where p.person = (select o.person from persons o where o.unit_id = d.unit_id))
  where d.position = decision_ and exists (
    select 1 from rewards r join decisions c on c.position = r.decision join experiments ce on ce.position = c.version
    where r.position > u.position and r.position <= u.last and ce.experiment = e.experiment)
$$;

create function add_rewards() returns trigger language plpgsql as $$
begin
  if exists (select 1 from unit_rewards) and exists (
      select 1 from added a cross join lateral find_credited(a.decision, a.reward_id, a.name, a.position)) then
    raise exception 'a reward by unit has this purchase';
  end if;
  return null;
end $$;

create trigger add_rewards after insert on rewards referencing new table as added
for each statement execute function add_rewards();

create function add_activations() returns trigger language plpgsql as $$
begin
  update exposures x set reserved_until = null from added a
  where a.action is null and x.decision = a.decision and x.reserved_until > a.time;
  return null;
end $$;

create trigger add_activations after insert on activations referencing new table as added
for each statement execute function add_activations();

create function add_seals() returns trigger language plpgsql as $$
begin
  update exposures x set reserved_until = a.time from added a
  where x.decision = a.decision and x.reserved_until > a.time;
  return null;
end $$;

create trigger add_seals after insert on seals referencing new table as added
for each statement execute function add_seals();

create function add_recalls() returns trigger language plpgsql as $$
begin
  insert into unit_decisions (experiment, unit_id, decision)
  select e.experiment, d.unit_id, d.position
  from added a join decisions d on d.position = a.decision join experiments e on e.position = d.version;
  return null;
end $$;

create trigger add_recalls after insert on recalls referencing new table as added
for each statement execute function add_recalls();
