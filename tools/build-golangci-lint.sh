#!/usr/bin/env bash
# Builds golangci-lint, in the version that tools/golangci/go.mod pins, into .cache/bin. It has a go.mod of its own because it
# needs 200 modules that nothing else here does.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=.cache/bin/golangci-lint
stamp=$binary.stamp
want="$(cksum <tools/golangci/go.mod) $(go env GOVERSION)"
if [ -x "$binary" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
  exit 0
fi
echo "golangci-lint: building (two to four minutes the first time)"
mkdir -p .cache/bin
go -C tools/golangci build -o "$PWD/$binary" github.com/golangci/golangci-lint/v2/cmd/golangci-lint
echo "$want" >"$stamp"
