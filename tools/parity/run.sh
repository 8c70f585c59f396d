#!/usr/bin/env bash
# Compares our token ids with those of Hugging Face transformers, newly computed, in an environment of its own.
#
#   tools/parity/run.sh         checks the committed fixtures against transformers, and ours against the fixtures
#   tools/parity/run.sh make    makes the fixtures anew first (tokenizers, texts, ids)
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=.cache/parity-venv
lists=(tools/parity/requirements.txt)
if [ "${1:-}" = make ]; then lists+=(tools/parity/requirements-bert.txt); fi

stamp=$venv/.stamp
want="$(cat "${lists[@]}" | cksum) $PWD"
if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  echo "parity: $venv: transformers and tokenizers (about 30 s)"
  "$venv/bin/python" -c '' 2>/dev/null || "${PYTHON:-python3}" -m venv --clear "$venv"
  for list in "${lists[@]}"; do
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
      --only-binary=:all: -r "$list"
  done
  printf '%s\n' "$want" >"$stamp"
fi

if [ "${1:-}" = make ]; then
  tools/fetch-corpus.sh
  "$venv/bin/python" tools/parity/make_fixtures.py
else
  "$venv/bin/python" tools/parity/make_fixtures.py --check
fi
go test -count=1 -run Parity ./inference/...
