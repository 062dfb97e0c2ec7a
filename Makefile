# The commands for users and contributors. Each target first creates the virtual environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs
WORKERS ?= 2 # processes that share the tests
JOBS ?= 2 # trainings that run at a time, each on one thread

# The tests start dozens of processes; without bytecode, each would compile all its imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-lowest lint format results tensorboard clean

# uv resolves in seconds; pip can take minutes.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e '.[data,networks,test,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/spectral-lightning fit --config configs/natural_patches_mlp.yaml
	@$(BIN)/spectral-lightning summary $(RUNS)/natural_patches_mlp

# The studies: all (about two hours on two cores) or one by name (results-gaussian). They write docs/results.
results: $(VENV)/.installed
	$(BIN)/python -m studies run --jobs $(JOBS)

results-%: $(VENV)/.installed
	$(BIN)/python -m studies run --names '["$*"]' --jobs $(JOBS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

# Install and test the minimum versions of pyproject.toml; run this after changing one.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/python -m uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[data,networks,test]'
	$(VENV)-lowest/bin/python -m pytest -n $(WORKERS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tensorboard: $(VENV)/.installed
	$(BIN)/tensorboard --logdir $(RUNS) --samples_per_plugin images=100

clean:
	rm -rf $(VENV) $(VENV)-lowest $(RUNS) .mypy_cache .ruff_cache .pytest_cache
