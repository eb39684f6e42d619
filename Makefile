PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := .venv-docs
PEERS := .venv-peers
QUANTIZED := .venv-quantized
FOREIGN := .venv-foreign
MODEL := bench/models/emoji-sd
DEMO := --prompt "red apple" --prompt "grinning face" --prompt "slice of pizza" \
	--prompt "tiger face" --prompt "fire engine" --prompt "penguin" \
	--steps 50 --compare

.PHONY: help install compiled demo docs gate test test-slow test-oldest lint types unit figures coverage pipelines compatibility quality peers quantized stateful drawn cases clean

help:
	@echo "make demo         pictures with and without fxcache, side by side, with times"
	@echo "make test         set-up, lint, types, tests"
	@echo "make gate         hold the bundled models' counts and times to expected values (minutes)"
	@echo "make docs         the documentation as a site, in build/docs"
	@echo "make test-slow    the tests that take minutes each"
	@echo "make test-oldest  the tests with the oldest torch (its build for CUDA: gigabytes)"
	@echo "make figures      measure again every number that the README states"
	@echo "make coverage     try every denoiser of diffusers again (an hour at most)"
	@echo "make pipelines    try every pipeline of diffusers again (about an hour)"
	@echo "make compatibility  try models of other packages, and public reports (about half an hour)"
	@echo "make quality      what every policy does to the bundled models' pictures (about two hours)"
	@echo "make peers        fxcache beside other caches, on the same models (about an hour)"
	@echo "make quantized    quantised models, with every library that has a test (minutes)"
	@echo "make stateful     ten thousand calls of requests that get in each other's way"
	@echo "make drawn        a hundred thousand calls of loops of every kind that take turns"
	@echo "make cases CASES=FOLDER   run each script of a folder; each exits 0 where it is right"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt \
		--editable ".[diffusers,dev]"
	touch $@

# pip would compile the packages one after the other, which is most of its time. Tests need them
# compiled: where Python compiles a file at its import, a warning about the file is an error.
compiled: $(VENV)/.compiled

$(VENV)/.compiled: $(INSTALLED)
	$(BIN)/python -W ignore -m compileall -qq $(VENV)/lib || true  # some have syntax of later versions
	touch $@

demo: install
	$(BIN)/fxcache run $(MODEL) $(DEMO) --out build/demo.png

gate: install
	$(BIN)/python -m bench.gate --html build/gate
	$(BIN)/python -m pytest -m slow tests/kernels/test_binaries.py

# Material for MkDocs is kept until May 2027; its successor, Zensical, reads the same mkdocs.yml.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "open build/docs/index.html"

# Without the package itself, which would bring torch.
$(DOCS)/.installed: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c "import tomllib; \
		project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*project['optional-dependencies']['docs'], sep='\n')" > $(DOCS)/requirements.txt
	$(DOCS)/bin/pip install --quiet --constraint constraints.txt --requirement $(DOCS)/requirements.txt
	touch $@

# Each of the first three takes one core.
test: install
	$(MAKE) --jobs 2 types compiled lint
	$(MAKE) unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy
	$(BIN)/mypy examples/onnx/run.py

unit: compiled
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: compiled
	$(BIN)/python -m pytest -m slow

# Triton 3.6, which comes with that torch, interprets kernels by what NumPy 2.4 took out.
test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	grep -vE '^(torch|triton|numpy|setuptools)==' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --constraint .venv-oldest/constraints.txt \
		--editable ".[diffusers,dev]" torch==2.11.0 "numpy<2.4"
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile \
		-W "ignore:Conversion of an array with ndim:DeprecationWarning"

figures: install
	mkdir -p bench/results docs/pictures
	$(BIN)/fxcache run $(MODEL) $(DEMO) --out docs/pictures/demo.png --json > bench/results/demo.json
	$(BIN)/python -m bench.dispatch --out bench/results/dispatch.json
	$(BIN)/python -m bench.frontier --out bench/results/frontier.json
	$(BIN)/python -m bench.paper_macs --out bench/results/paper_macs.json
	$(BIN)/python -m bench.hoisting --out bench/results/hoisting.json
	$(BIN)/python -m bench.artifacts --out bench/results/artifacts.json
	$(BIN)/python -m bench.serving --out bench/results/serving.json
	$(BIN)/python -m bench.planning --out bench/results/planning.json
	$(BIN)/python -m bench.memory --out bench/results/memory.json
	$(BIN)/python -m bench.traffic --out bench/results/traffic.json
	$(BIN)/python -m bench.figures

coverage: install
	$(BIN)/python -m bench.coverage
	$(BIN)/python -m bench.figures

pipelines: install
	$(BIN)/python -m bench.pipelines
	$(BIN)/python -m bench.figures

# Another environment. Some packages pin versions that they do not need: pip installs those without
# their dependencies. setuptools 80 is the last with pkg_resources, which k-diffusion imports.
# Beside torch for the CPU, torchaudio works without its compiled part, which is for CUDA.
compatibility: install $(FOREIGN)/.installed
	$(FOREIGN)/bin/python -m bench.foreign
	$(BIN)/python -m bench.reports

$(FOREIGN)/.installed: pyproject.toml constraints.txt $(wildcard bench/foreign/*.txt)
	test -x $(FOREIGN)/bin/python || $(PYTHON) -m venv $(FOREIGN)
	grep -vE '^setuptools==' constraints.txt > $(FOREIGN)/constraints.txt
	$(FOREIGN)/bin/pip install --quiet --constraint $(FOREIGN)/constraints.txt \
		--editable ".[diffusers]" --requirement bench/foreign/requirements.txt
	$(FOREIGN)/bin/pip install --quiet --no-deps --requirement bench/foreign/unpinned.txt
	rm -f $(FOREIGN)/lib/python3*/site-packages/torchaudio/lib/*.so
	touch $@

quality: install
	$(BIN)/python -m bench.quality
	$(BIN)/python -m bench.few_steps

# Another environment: some peers may want other versions one day. Only what is missing is measured.
peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m bench.peers --out bench/results/peers.json
	$(PEERS)/bin/python -m bench.peers.document

$(PEERS)/.installed: pyproject.toml constraints.txt bench/peers/constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt \
		--constraint bench/peers/constraints.txt --editable ".[diffusers]" \
		cache-dit DeepCache hicache-pp para-attn
	touch $@

# Another environment: bitsandbytes is large, and diffusers imports each quantiser that it finds.
quantized: $(QUANTIZED)/.installed
	$(QUANTIZED)/bin/python -m pytest -m "slow or not slow" tests/pipelines/test_quantized*.py

$(QUANTIZED)/.installed: pyproject.toml constraints.txt
	test -x $(QUANTIZED)/bin/python || $(PYTHON) -m venv $(QUANTIZED)
	$(QUANTIZED)/bin/pip install --quiet --constraint constraints.txt \
		--editable ".[diffusers,dev,quantized]"
	touch $@

stateful: install
	$(BIN)/python -m tests.runtime.test_stateful --out bench/results/stateful.json

drawn: install
	$(BIN)/python -m tests.runtime.drawn --out bench/results/drawn_calls.json

# Scripts import one another from their own folder.
cases: install
	@failed=0; for script in $(CASES)/*.py; do \
		echo "$$script"; $(BIN)/python "$$script" || failed=1; \
	done; exit $$failed

clean:
	rm -rf build $(VENV) $(DOCS) $(PEERS) $(QUANTIZED) $(FOREIGN) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
