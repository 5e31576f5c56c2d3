# What one does with this tree. Nothing needs to be activated, and nothing outside of .venv is touched.
#
# Works with GNU make 3.81 (macOS) and with any POSIX shell.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet --no-input

# Shell code that sets $$python, or stops and says what to install. Debian's python3 without python3-venv has `venv` but
# not `ensurepip`, and would make an environment without pip: both are asked for.
define FIND_PYTHON
python=; \
for candidate in "$(PYTHON)" python3 python3.11 python3.12 python3.13 python3.14; do \
	if "$$candidate" -c 'import sys; assert sys.version_info >= (3, 11); import venv, ensurepip' >/dev/null 2>&1; then \
		python=$$candidate; break; \
	fi; \
done; \
if [ -z "$$python" ]; then \
	if [ "$$(uname -s)" = Darwin ]; then install='brew install python'; \
	else install='apt-get install python3 python3-venv'; fi; \
	echo "No Python 3.11 or newer with venv was found; this installs it: $$install" >&2; \
	exit 1; \
fi
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: venv
venv: $(STAMP) ## Make .venv and install @Once and its tools there

# The stamp goes first: whatever fails below, the next run begins here again.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $(STAMP)
	@if ! $(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11); import pip' >/dev/null 2>&1; then \
		$(FIND_PYTHON); \
		echo "Making $(VENV) with $$python"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing into $(VENV)"
	@$(BIN)/python $(PIP_INSTALL) --editable '.[dev,fast]' --constraint constraints.txt
	@touch $(STAMP)

.PHONY: demo
demo: $(STAMP) ## Show a network at work on this machine
	@$(BIN)/atonce demo $(ARGS)

.PHONY: test
test: $(STAMP) ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Coverage-guided where atheris can be had (Linux); else structured mutants alone.
TIME ?= 600

.PHONY: fuzz
fuzz: $(STAMP) ## Feed bad input to all that parses bytes, for TIME seconds
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python $(PIP_INSTALL) --editable '.[fuzz]' || echo "without atheris"
	@$(BIN)/python -m fuzz run --time $(TIME) $(ARGS)

.PHONY: soak
soak: $(STAMP) ## Try for half an hour to make delivery break its word
	@$(BIN)/python -m soak weather $(ARGS)
	@$(BIN)/python -m soak cuts
	@$(BIN)/python -m soak redials
	@$(BIN)/python -m soak restarts

.PHONY: check
check: $(STAMP) ## Run the formatter, the linter, the type checker and the house rules
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/test_house.py

# A rival that cannot be installed is left out of the benchmark, which says so.
.PHONY: bench-dht
bench-dht: $(STAMP) ## Measure the DHT beside rivals on real sockets (six minutes; ARGS=--quick: one)
	@$(BIN)/python $(PIP_INSTALL) --editable '.[bench]' --constraint constraints.txt || echo "libtorrent is left out"
	@$(BIN)/python -m benchmarks.dht $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure messages between two processes beside rivals (ten minutes at most; ARGS=--quick: two)
	@$(BIN)/python -m benchmarks.messages $(ARGS)

# Debian's modules run under Debian's Python; the wheel of libtorrent comes with `make bench-dht`. The rivals in messaging
# bring eighty packages along, so they have an environment of their own.
MESSAGE_RIVALS := benchmarks/messages/rivals/venv

.PHONY: bench-rivals
bench-rivals: $(STAMP) ## Install the rivals of both benchmarks (apt-get, pip, npm), as far as they are to be had
	@if command -v apt-get >/dev/null; then \
		apt-get install -y python3-opendht python3-libtorrent python3-nacl || true; \
		apt-get install -y --no-install-recommends nats-server redis-server || true; \
	else echo "no apt-get here: OpenDHT is left out, and NATS and Redis unless they are installed"; fi
	@$(BIN)/python -m venv $(MESSAGE_RIVALS)
	@for package in nats-py redis websockets zeromq-pyre libp2p; do \
		$(MESSAGE_RIVALS)/bin/python $(PIP_INSTALL) $$package || echo "$$package is left out"; \
	done
	@if command -v npm >/dev/null; then npm install --prefix benchmarks/dht/rivals --no-audit --no-fund; \
	else echo "no npm here: hyperdht is left out"; fi

.PHONY: bench-flood
bench-flood: $(STAMP) ## Measure a node under 20,000 spoofed packets a second (fifteen seconds, Linux, an idle machine)
	@$(BIN)/python benchmarks/flood.py $(ARGS)

.PHONY: bench-topics
bench-topics: $(STAMP) ## List a topic of a thousand members in a simulated network (two minutes; ARGS='NODES MEMBERS SAMPLES')
	@$(BIN)/python benchmarks/topics.py $(ARGS)

.PHONY: bench-calls
bench-calls: $(STAMP) ## Measure requests and replies beside asyncio's TLS streams (two minutes)
	@$(BIN)/python benchmarks/calls.py $(ARGS)

.PHONY: bench-durable
bench-durable: $(STAMP) ## Measure durable messages on real disks, beside plain ones (half a minute; ARGS='--folder DISK')
	@$(BIN)/python -m benchmarks.durable $(ARGS)

.PHONY: bench-streams
bench-streams: $(STAMP) ## Measure a stream beside a TLS stream of asyncio, on loopback (a minute)
	@$(BIN)/python benchmarks/streams.py $(ARGS)

.PHONY: bench-rooms
bench-rooms: $(STAMP) ## Shout in a room of a thousand in the virtual world (a quarter of an hour; ARGS='MEMBERS SHOUTS')
	@$(BIN)/python benchmarks/rooms.py $(ARGS)

# The newest versions that fit pyproject.toml, tried out in an environment of their own; run the tests afterwards.
.PHONY: constraints
constraints: ## Renew constraints.txt
	@$(FIND_PYTHON); \
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	"$$python" -m venv "$$scratch/venv" && \
	"$$scratch/venv/bin/python" $(PIP_INSTALL) --editable '.[dev,fast]' && \
	{ echo '# Made by `make constraints`: the versions that the tests were last run with.'; \
	  "$$scratch/venv/bin/python" -m pip --disable-pip-version-check freeze --exclude dht-atonce; \
	} > "$$scratch/constraints.txt" && \
	cp "$$scratch/constraints.txt" constraints.txt

.PHONY: clean
clean: ## Remove .venv and all else that was made here
	rm -rf $(VENV) benchmarks/results benchmarks/dht/rivals/node_modules $(MESSAGE_RIVALS) build dist htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
