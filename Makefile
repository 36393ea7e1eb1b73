# Two commands do it all on a fresh machine with Python 3.11 to 3.14: `make run` and `make test`.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-strip-extras --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) pyproject.toml
CODE := odinws strategies tests bench locustfiles gunicorn.conf.py

.DEFAULT_GOAL := help
.PHONY: help run test test-python check format lock wheel wheel-check experiment bench autobahn cluster soak fuzz \
	attack losses bench-smoke compose-check image-check audit clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/runtime ## the server with an embedded NATS and a demo feed, at 127.0.0.1:3004
	@exec $(BIN)/gunicorn -c gunicorn.conf.py

# Most tests wait for servers: four at a time keep two cores busy.
test: .venv/all ## the whole test suite
	$(BIN)/python -m pytest -n $(or $(PROCESSES),4) --dist worksteal

test-python: ## unit and integration tests on another Python: VERSION=3.14 (3.14 from Debian sid needs root)
	tests/packaging/python $(or $(VERSION),3.14) $(TESTS)

check: .venv/all ## lint, format, types, import rules, duplicates, Dockerfile
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/pylint --disable=all --enable=duplicate-code --min-similarity-lines=8 odinws strategies bench
	$(BIN)/hadolint Dockerfile

format: .venv/all ## rewrite the code in the house style
	$(BIN)/ruff check --fix-only --quiet $(CODE)
	$(BIN)/ruff format $(CODE)

lock: .venv/all ## pin anew what pyproject.toml allows, with hashes; UPGRADE=1 takes the newest
	$(LOCK) --extra dev --output-file requirements.txt
	$(LOCK) --extra server --constraints requirements.txt --output-file conf/requirements-runtime.txt
	$(LOCK) --extra bench --constraints requirements.txt --output-file bench/requirements.txt
	$(LOCK) --extra audit --constraints requirements.txt --output-file conf/requirements-audit.txt

audit: .venv/all ## known vulnerabilities in what is pinned, as far as a source of them can be reached
	$(BIN)/python -m tests.packaging.audit

wheel: .venv/all ## wheel and sdist, in build/dist
	rm -rf build/dist
	$(BIN)/hatchling build -d build/dist

wheel-check: wheel ## install the wheel where nothing else is; serve, subscribe, publish and experiment there
	$(BIN)/python -m tests.packaging.check build/dist

experiment: .venv/all ## strategies side by side: PLAN=conf/experiments/strategies.toml OUT=results/strategies
	$(BIN)/python -m odinws experiment run $(or $(PLAN),conf/experiments/strategies.toml) \
		--out $(or $(OUT),results/strategies)

bench: .venv/all ## what fan-out costs beside peers; SCENARIOS="single burst", ARMS=..., ROUNDS=6
	$(BIN)/python -m bench run $(SCENARIOS) $(if $(ARMS),--arms $(ARMS)) $(if $(ROUNDS),--rounds $(ROUNDS))

autobahn: .venv/all ## the Autobahn testsuite against /echo: all of it, or SECTIONS="1-7,10"
	$(BIN)/python -m tests.autobahn $(if $(SECTIONS),--sections "$(SECTIONS)",--all)

soak: .venv/all ## steady churn for MINUTES=20: nothing may grow, nothing may be lost; with a picture
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),20)

fuzz: .venv/all ## hostile bytes for SECONDS=60 at all that reads them
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

attack: .venv/all ## strangers with a megabyte each, in a network namespace (root): VECTORS="pings since"
	$(BIN)/python -m tests.attack $(VECTORS:%=--vector %)

losses: .venv/all ## HISTORIES=5000 random histories of a stream: all that was published is delivered or told
	$(BIN)/python -m tests.losses --histories $(or $(HISTORIES),5000)

cluster: .venv/all ## three nats-servers, two servers and haproxy (Debian's), for trying
	$(BIN)/python -m odinws lab cluster

bench-smoke: .venv/all ## every arm that needs only pip starts and delivers
	$(BIN)/python -m bench smoke

compose-check: ## lint compose.yaml (needs npm)
	npm exec --yes -- dclint@3.1.0 --max-warnings 0 compose.yaml

image-check: ## build the image and run it (needs root; installs buildah and debootstrap)
	$(PYTHON) -m tests.image.check --install

clean: ## remove what make has made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'make: no Python 3.11 to 3.14 found; set PYTHON=/path/to/python' >&2; exit 1; }
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo 'make: $(PYTHON) can not make virtual environments (Debian: python3-venv)' >&2; exit 1; }

.venv/runtime: conf/requirements-runtime.txt | .venv/bin/python
	@echo "installing $<"
	@$(PIP) install --require-hashes -r $<
	@touch $@

.venv/all: requirements.txt | .venv/bin/python
	@echo "installing $<"
	@$(PIP) install --require-hashes -r $<
	@touch $@ .venv/runtime
