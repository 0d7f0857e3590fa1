-- The least that each kind of process needs, for whoever owns the log to run once, with the log's schema first in the
-- search path, and again behind an upgrade:
--
--   psql -d shop -v ON_ERROR_STOP=1 -f decider/log/postgres/roles.sql
--
-- Give a login one of them: grant decider_worker to shop_worker. The owner makes and upgrades the tables: `decider serve`
-- as the owner once, or whenever a release has new tables; it says so where it may not.
--
-- decider_reader: the simulator, dashboards and people; reads everything.
-- decider_worker: serves; adds entries, and can change or delete none; publishes no model. A host with this role never
--   leads.
-- decider_leader: serves and leads; stores models and totals, too.

do $$
declare
  role text;
begin
  foreach role in array array['decider_reader', 'decider_worker', 'decider_leader'] loop
    if not exists (select 1 from pg_roles where rolname = role) then
      execute format('create role %I nologin', role);
    end if;
    execute format('grant usage on schema %I to %I', current_schema(), role);
    execute format('grant select on all tables in schema %I to %I', current_schema(), role);
  end loop;
end $$;

grant insert on experiments, version_notes, decisions, rewards, reward_changes, seals, unit_rewards, links, leave_outs,
  activations, recalls, withheld, builds, ticks, marks
to decider_worker, decider_leader;

grant insert on serves, published, signatures to decider_leader;

grant update on head to decider_worker, decider_leader;

grant insert, update, delete on writers, early_activations, assignments, persons, creditable_decisions, exposures,
  daily_counts, unit_decisions, action_kinds, refused_rewards
to decider_worker, decider_leader;

grant update on lease to decider_leader;

grant insert, update on learners to decider_leader;

grant insert, update, delete on models, totals_checkpoints, shared_models, leader_news to decider_leader;
