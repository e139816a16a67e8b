.PHONY: install demo test test-all check schema bench docs
PYTHON ?= python3
BIN := .venv/bin

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[train,demo,dev]"
	touch $@

demo: install
	$(BIN)/sertone demo $(ARGS)

test: install
	$(BIN)/pytest -n auto --maxprocesses 4 $(ARGS)

test-all: install
	$(BIN)/pytest -m "slow or not slow" $(ARGS)

bench: install
	$(BIN)/python bench/train.py --quick $(ARGS)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

schema: install
	$(BIN)/python -c "import json; from sertone.models import recipe_schema; print(json.dumps(recipe_schema(), indent=1))" > recipes/schema.json
	$(BIN)/python -c "import json; from sertone.training.distill.distill_recipe import recipe_schema; print(json.dumps(recipe_schema(), indent=1))" > recipes/distill_schema.json
	$(BIN)/python -c "import json; from sertone.analysis.study.study import Study; print(json.dumps(Study.model_json_schema(), indent=1))" > studies/schema.json
