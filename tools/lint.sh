#!/usr/bin/env bash
# Runs every linter, each of them even after another has found something, and says which did. `make lint` sets them up first.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH="$PWD/.cache/tools-venv/bin:$PWD/.cache/bin:$PATH"

crate=inference/text/hf/tokenizers
failed=()
check() {
  local name=$1 start=$SECONDS
  shift
  if "$@"; then
    echo "lint: $name: ok ($((SECONDS - start)) s)"
  else
    echo "lint: $name: see above" >&2
    failed+=("$name")
  fi
}

tidy() { # tidy FOLDER: go.mod is what `go mod tidy` would write
  go -C "$1" mod tidy -diff
}
golangci() { # golangci FOLDER: a module of its own, under the same rules
  (cd "$1" && golangci-lint run ./...)
}
gofmt_clean() {
  local files
  files=$(git ls-files -z --cached --others --exclude-standard -- '*.go' | xargs -0 ls 2>/dev/null | xargs gofmt -l)
  [ -z "$files" ] || { echo "not as gofmt writes them: $files"; return 1; }
}
shell_scripts() {
  git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run | xargs shellcheck
}
dockerfiles() {
  git ls-files --cached --others --exclude-standard -- '*Dockerfile*' | grep -v '\.dockerignore$' | xargs -r hadolint
}

check gofmt gofmt_clean
check "go vet" go vet ./...
check "go vet, engines/onnxgo" go -C engines/onnxgo vet ./...
check golangci-lint golangci-lint run ./...
check "golangci-lint, engines/onnxgo" golangci engines/onnxgo
check "go mod tidy" tidy .
check "go mod tidy, engines/onnxgo" tidy engines/onnxgo
check "go mod tidy, tools" tidy tools
check "go mod tidy, tools/golangci" tidy tools/golangci
check "buf lint" buf lint
check "buf breaking" buf breaking proto --against proto/baseline.binpb
check "generated code" tools/generate.sh check
check "cargo fmt" cargo fmt --check --manifest-path "$crate/Cargo.toml"
check clippy env CARGO_TARGET_DIR="$PWD/.cache/cargo" cargo clippy --quiet --release --locked --all-targets --manifest-path "$crate/Cargo.toml" -- -D warnings
check "ruff check" ruff check
check "ruff format" ruff format --check
check shellcheck shell_scripts
check hadolint dockerfiles

if [ ${#failed[@]} -gt 0 ]; then
  echo "lint: not clean: ${failed[*]}" >&2
  exit 1
fi
echo "lint: clean"
