#!/usr/bin/env bash
# Writes the Go, gateway and OpenAPI code of proto/. The google/api and google/rpc protos that ours import come out of a pinned
# Python wheel into .cache/googleapis.
#
#   tools/generate.sh            unpacks and generates
#   tools/generate.sh protos     unpacks only (what buf lint needs)
#   tools/generate.sh check      generates, and fails if that changed anything
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.cache/googleapis/.stamp
if ! cmp -s "$stamp" tools/requirements-protos.txt; then
  echo "generate: fetching the googleapis protos"
  mkdir -p .cache/googleapis
  scratch=$(mktemp -d .cache/googleapis.XXXXXX)
  trap 'rm -rf "$scratch"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --require-hashes --only-binary=:all: \
    --dest "$scratch" -r tools/requirements-protos.txt
  python3 - "$scratch" .cache/googleapis <<'PY'
import pathlib, sys, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in ("google/api/annotations.proto", "google/api/http.proto", "google/rpc/status.proto"):
        archive.extract(name, sys.argv[2])
PY
  cp tools/requirements-protos.txt "$stamp"
fi
if [ "${1:-}" = protos ]; then exit 0; fi

tools/setup-python.sh lint
export PATH="$PWD/.cache/tools-venv/bin:$PATH"
digest() {
  find proto server/openapi clients/python/src -type f \( -name '*.go' -o -name '*.json' -o -name '*.binpb' \) -exec cksum {} + | sort
}
before=$(digest)
buf generate
clients/python/generate.sh
if [ "$(digest)" = "$before" ]; then
  echo "generate: proto/ and server/openapi/ were up to date"
elif [ "${1:-}" = check ]; then
  echo "generate: proto/ or server/openapi/ was not what make generate writes; it is now, so commit it" >&2
  diff <(echo "$before") <(digest) >&2
  exit 1
else
  echo "generate: proto/ and server/openapi/ are renewed"
fi
