#!/usr/bin/env bash
# Renews tools/requirements*.txt, with the sha256 of every file, from the .in files beside them. Run it after changing one of those.
set -euo pipefail
cd "$(dirname "$0")"

venv=../.cache/lock-venv
[ -x "$venv/bin/pip-compile" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet pip-tools==7.6.2; }
for list in requirements requirements-lint requirements-mlflow2 requirements-moto; do
  echo "lock: $list.txt"
  "$venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links -o "$list.txt" "$list.in"
done
