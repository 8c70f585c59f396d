#!/usr/bin/env bash
# Runs every fuzz target of the Go modules, one after the other, each for FUZZTIME (default 30s). What one finds is written to its testdata/fuzz, from where
# `go test` runs it ever after; the others run all the same.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=()
count=0
while IFS=: read -r file name; do
  count=$((count + 1))
  echo "fuzz: $(dirname "$file") $name"
  go -C "$(dirname "$file")" test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}" . || failed+=("$(dirname "$file") $name")
done < <(git grep -oE '^func Fuzz[A-Za-z0-9]+' -- '*_test.go' | sed 's/func //' | sort)

if [ ${#failed[@]} -gt 0 ]; then
  printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "fuzz: $count targets, nothing found"
