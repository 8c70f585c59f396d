#!/usr/bin/env bash
# Makes a Python environment below .cache/ from a locked list of packages, each checked against its sha256.
#
#   tools/setup-python.sh          .cache/venv        MLflow, training, tests
#   tools/setup-python.sh lint     .cache/tools-venv  linters and generators
#   tools/setup-python.sh mlflow2  .cache/mlflow2-venv  MLflow 2, for the tests of modelstore/mlflow
#   tools/setup-python.sh moto     .cache/moto-venv     an S3 server, for tests
#
# A stamp that holds the list's digest makes a second call return at once.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-demo}" in
  demo) list=tools/requirements.txt venv=.cache/venv about="MLflow, ONNX, scikit-learn (about 25 s)" ;;
  lint) list=tools/requirements-lint.txt venv=.cache/tools-venv about="buf, ruff, shellcheck, hadolint" ;;
  mlflow2) list=tools/requirements-mlflow2.txt venv=.cache/mlflow2-venv about="an MLflow 2 server for tests (about 25 s)" ;;
  moto) list=tools/requirements-moto.txt venv=.cache/moto-venv about="an S3 server for tests (about 10 s)" ;;
  *) echo "usage: tools/setup-python.sh [demo|lint|mlflow2|moto]" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}

stamp=$venv/.stamp
want="$(cksum <"$list") $(cksum <"$0") $PWD"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  exit 0
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "python: $python is missing or older than 3.11: install Python 3.11 or newer, or name one with PYTHON=..." >&2
  exit 1
fi

# Two makes at once would write into one folder: the second waits for the first and finds the work done.
mkdir -p .cache
exec 9>"$venv.lock"
if command -v flock >/dev/null; then flock 9; fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  exit 0
fi

echo "python: $venv: $about"
if ! "$venv/bin/python" -c '' 2>/dev/null; then
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >"$venv.log" 2>&1; then
    # Debian keeps venv in a package of its own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "python: installing the Debian package python3-venv"
      apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
      rm -rf "$venv"
      "$python" -m venv "$venv"
    else
      cat "$venv.log" >&2
      echo "python: cannot make $venv: install your system's python3-venv package" >&2
      exit 1
    fi
  fi
  rm -f "$venv.log"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
  --only-binary=:all: -r "$list"
printf '%s\n' "$want" >"$stamp"
echo "python: $venv is ready"
