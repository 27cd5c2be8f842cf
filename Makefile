# make demo    sets everything up and runs the main job: five algorithms on real data, with one small learning rate for all and with
#              each at its own best; two tables and two pages
# make test    sets everything up and runs the whole suite
# make test-ecosystem   training scripts of Transformers, Accelerate and Lightning, which it installs
# make test-cluster     those tests of several machines that take long
# make check   lint, format and types          make fix     what of that can be mended automatically
# make bench   how fast the simulator is        make docs    the site in build/docs, with Sphinx, which it installs; generated pages and pictures
# make bench-live   how fast live runs are, with torch's DDP beside them; DATA=folder with MNIST adds the race
# make bench-cluster   how fast runs over two nodes of a Ray cluster on this machine are, as root over a link of their own, beside DDP
# make drill   fifty runs of which agents are killed at random     make soak    sixteen agents, five minutes, flat out
# make drill-cluster   twenty kills over two nodes of a Ray cluster: agents, gateways, launchers, machines, the head;
#                      SEED=1 are others; KILL=7 shows one again
# make fuzz    two thousand damaged or hostile files, for every reader; CASE=1234 shows one again
# make fuzz-worlds   2,000 random worlds: every executor against the oracle; tests/support/fuzz_worlds.py --world N: one again
# make clean   remove everything that make made
#
# PYTHON=python3.12 chooses the Python (3.11 or later). Where pip finds no CPU wheel of torch, name an index that has it:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DOCS := .venv/docs

.PHONY: demo test test-ecosystem test-cluster check fix bench bench-live bench-cluster drill drill-cluster soak fuzz fuzz-worlds docs clean

demo: $(READY)
	mkdir -p build
	@echo 'One small learning rate for all, as in the evaluation of arXiv:2505.10322:'
	$(BIN)/offbeat compare --task digits --case combined --skew 1 --target 0.9 \
		--json build/demo.json --report build/demo.html
	@echo 'The same world, each algorithm at the learning rate with which it gets there soonest:'
	$(BIN)/offbeat compare --task digits --case combined --skew 1 --target 0.9 --until 800 --eval-every 20 --seeds 5 \
		--lr tuned --tune-by target --tune-grid 0.1,0.3,1,3 --json build/demo-tuned.json --report build/demo-tuned.html

# Each process would compile all that it imports where nothing may be kept of that.
test: $(READY)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-ecosystem: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[ecosystem]'
	$(BIN)/python -m pytest -m ecosystem

test-cluster: $(READY)
	$(BIN)/python -m pytest -m cluster

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python bench/simulator.py
	$(BIN)/python bench/goals.py $(if $(DATA),--data $(DATA))

bench-live: $(READY)
	$(BIN)/python bench/live.py $(if $(DATA),--data $(DATA))

bench-cluster: $(READY)
	$(BIN)/python bench/cluster.py

drill: $(READY)
	OFFBEAT_DRILL=50 $(BIN)/python -m pytest tests/live/test_processes.py -k killed_at_random -rA

drill-cluster: $(READY)
	$(BIN)/python tests/support/cluster_drill.py $(if $(SEED),--seed $(SEED)) $(if $(KILL),--kill $(KILL))

soak: $(READY)
	$(BIN)/python bench/soak.py

fuzz: $(READY)
	$(BIN)/python tests/support/fuzz_files.py $(if $(CASE),--case $(CASE))

fuzz-worlds: $(READY)
	$(BIN)/python tests/support/fuzz_worlds.py 2000

docs: $(DOCS)
	$(BIN)/python tests/support/picture.py
	$(BIN)/python tests/support/concept_pictures.py
	$(BIN)/python tests/support/algorithms_page.py
	$(BIN)/python tests/support/reproduced.py
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs \
		--doctree-dir build/doctrees . build/docs
	@echo "Written: build/docs/index.html"

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "offbeat needs Python 3.11 or later; '$(PYTHON)' is" `$(PYTHON) --version 2>&1` "- try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[dev]'
	@touch $(READY)

$(DOCS): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[docs]'
	@touch $(DOCS)
