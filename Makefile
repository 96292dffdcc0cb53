# make demo · make test · make test-long · make test-ray · make test-clients · make fuzz · make bench · make proto · make docs · make lint

.DEFAULT_GOAL := help
.PHONY: help demo test test-collect test-unit test-browser test-long test-ray test-clients fuzz bench upstreams proto docs lint clean

# The newest Python that MindSpore supports. A version manager's shim may be there for a version that is not, so each
# candidate has to run. PYTHON=… overrides it.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$python && break; done)

help:
	@echo "make demo        serve the sample classifier and explain a photograph of a cat (ONCE=1 ends after that)"
	@echo "make test        lint, types and all tests"
	@echo "make test-long   the same, with many more kills, crowds, nets and messages drawn at random"
	@echo "make test-ray    runs over Ray, with actors and machines that are killed (some minutes)"
	@echo "make test-clients  clients that others wrote, each in an environment of its own (needs node and npm)"
	@echo "make fuzz        inputs that get through the decoders of strangers' bytes, searched for (SECONDS=60 for each)"
	@echo "make bench       what explanations cost, as ratios to the bare forward pass"
	@echo "make upstreams   models on servers of others (Triton, MLServer, KServe) explained from outside, as figures"
	@echo "make lint        lint and types only"
	@echo "make docs        write docs/reference/, the dashboard and the console's alerts anew"
	@echo "make proto       generate the stubs from proto/"

demo: .venv/demo
	@.venv/bin/xai-sidecar demo $(if $(ONCE),--once)

# Three processes share the tests, since one or another of them waits, on two cores; two share those marked `timed`, which
# come last, when nothing is compiled beside them. MindSpore changes how a process takes Ctrl-C, which unit tests try:
# what imports it has processes of its own. So has what drives a browser, whose event loop would be in others' way: it
# mostly waits, for pages, and so runs beside the unit tests, its output kept until it is done.
PYTEST := .venv/bin/pytest --numprocesses

# Python keeps what it compiles, whatever the environment says: else each of some hundred processes compiles all again.
test: export PYTHONDONTWRITEBYTECODE :=
test:
	@make --no-print-directory --jobs=2 lint test-collect
	@status=0; \
	make --no-print-directory --jobs=2 --keep-going test-unit test-browser || status=1; \
	$(PYTEST)=3 -m "not timed" tests/integration tests/conformance tests/e2e tests/deploy tests/chaos tests/security \
		|| status=1; \
	$(PYTEST)=2 -m timed tests/integration tests/chaos || status=1; \
	exit $$status

# While mypy has one core: pytest compiles the tests in a way of its own, which the processes to come then find done.
test-collect: .venv/dev
	@$(PYTEST)=0 --collect-only --quiet >.venv/collect.log 2>&1 || { cat .venv/collect.log; exit 1; }

test-unit: .venv/dev
	@$(PYTEST)=3 tests/unit

test-browser: .venv/dev
	@$(PYTEST)=0 tests/browser >.venv/browser.log 2>&1; status=$$?; cat .venv/browser.log; exit $$status

# Rounds of what a rare race or a leak would show in.
test-long: export XAI_KILLS = 50
test-long: export XAI_FUZZ = 10000
test-long: export XAI_SOAK = 30
test-long: export XAI_NETS = all
test-long: export PYTEST_ADDOPTS = --timeout=3600
test-long: test

test-ray: .venv/dev .venv/ray
	$(PYTEST)=0 tests/ray/spread_over_ray.py

SECONDS ?= 60
fuzz: .venv/dev .venv/fuzz
	.venv/bin/python tests/fuzz/decoders.py --seconds $(SECONDS)

# They want releases of protobuf that MindSpore cannot have.
CLIENTS := .venv-clients
test-clients: .venv/dev $(CLIENTS)/triton/ready $(CLIENTS)/kserve/ready $(CLIENTS)/node/ready
	$(PYTEST)=0 tests/clients

$(CLIENTS)/triton/ready: PACKAGE := tritonclient[grpc,http]>=2.40
$(CLIENTS)/kserve/ready: PACKAGE := kserve>=0.15
$(CLIENTS)/triton/ready $(CLIENTS)/kserve/ready:
	@echo "Installing $(PACKAGE) …"
	@$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --disable-pip-version-check -q '$(PACKAGE)' && touch $@

$(CLIENTS)/node/ready:
	@mkdir -p $(@D) && cd $(@D) && npm install --silent --no-audit --no-fund @grpc/grpc-js @grpc/proto-loader && touch ready

lint: .venv/dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/buf lint proto
	.venv/bin/python docs/generate.py --check

bench: .venv/dev
	.venv/bin/python -m bench

# Servers that others wrote, each in an environment of its own, since they want other packages than we do. pytriton is
# made for NumPy 1.
UPSTREAM_triton := nvidia-pytriton==0.7.0 onnxruntime 'numpy<2'
UPSTREAM_mlserver := mlserver==1.7.1 onnxruntime
UPSTREAM_kserve := kserve==0.21.0 onnxruntime
UPSTREAMS := .venv-upstreams

upstreams: .venv/dev $(addprefix $(UPSTREAMS)/,triton mlserver kserve)
	UPSTREAMS=$(UPSTREAMS) .venv/bin/python -m bench upstreams

$(UPSTREAMS)/%:
	@$(PYTHON) -m venv $@ && $@/bin/pip install --disable-pip-version-check -q $(UPSTREAM_$*) \
		|| { rm -rf $@; exit 1; }

docs: .venv/dev
	.venv/bin/python docs/generate.py
	.venv/bin/python deploy/grafana/dashboard.py
	.venv/bin/python deploy/prometheus/for_console.py

proto:
	PYTHON=$(PYTHON) proto/generate.sh

clean:
	rm -rf .venv .venv-proto $(UPSTREAMS) $(CLIENTS) build dist demo-output

# The stamp files tell which extra is installed; a change of pyproject.toml installs again. Of what tests need, Python
# compiles the third that they import when they do so.
SIZE_demo := (about 0.25 GB to download and 0.7 GB on disk; a minute)
SIZE_dev := and MindSpore (about 0.9 GB to download and 3 GB on disk; a few minutes)
SIZE_fuzz := (about 0.03 GB to download)
SIZE_ray := (about 0.1 GB to download and 0.3 GB on disk)
.venv/demo .venv/dev .venv/fuzz .venv/ray: .venv/%: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed, and none was found; name one with PYTHON=…" >&2; exit 1; }
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "Python cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing xai-sidecar[$*] $(SIZE_$*) into .venv …"
	@.venv/bin/pip install --progress-bar on --disable-pip-version-check --no-compile -q -e '.[$*]'
	@test $* = dev || .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true  # on all cores; pip takes one
	@touch $@
