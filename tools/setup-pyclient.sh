#!/usr/bin/env bash
# Makes .cache/pyclient-venv: what the tests of clients/python need, pyspark among it, each package checked against its sha256.
#
#   tools/setup-pyclient.sh        makes it; a second call returns at once
#   tools/setup-pyclient.sh lock   renews clients/python/requirements-test.txt from the .in file beside it
set -euo pipefail
cd "$(dirname "$0")/.."

list=clients/python/requirements-test.txt
venv=.cache/pyclient-venv
python=${PYTHON:-python3}

if [ "${1:-}" = lock ]; then
  locker=.cache/lock-venv
  [ -x "$locker/bin/pip-compile" ] || { "$python" -m venv "$locker" && "$locker/bin/pip" install --quiet pip-tools==7.6.2; }
  echo "lock: $list"
  "$locker/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links -o "$list" "${list%.txt}.in"
  exit 0
fi

if ! command -v java >/dev/null; then
  # Spark runs on Java. Debian 12 has 17.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "pyclient: installing the Debian package default-jre-headless"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq default-jre-headless >/dev/null
  else
    echo "pyclient: java is missing: install a Java runtime, 17 or newer, for Spark" >&2
    exit 1
  fi
fi

stamp=$venv/.stamp
want="$(cksum <"$list") $(cksum <"$0") $PWD"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  exit 0
fi

# Two makes at once would write into one folder: the second waits for the first and finds the work done.
mkdir -p .cache
exec 9>"$venv.lock"
if command -v flock >/dev/null; then flock 9; fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  exit 0
fi

echo "pyclient: $venv: grpcio, MLflow's client, ONNX, pyspark (one to three minutes the first time)"
rm -rf "$venv"
"$python" -m venv "$venv"
# pyspark is published as source only; it is built with the locked setuptools, and nothing else is fetched for that.
install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps "$@"
}
lines() { # lines PATTERN: the entries of the list whose name matches, hashes included
  awk -v want="$1" '/^[A-Za-z]/ {on = $0 ~ want} on' "$list"
}
install --only-binary=:all: -r <(lines '^(setuptools|wheel)==')
install --only-binary=:all: -r <(lines '^(.*)==' | awk '/^[A-Za-z]/ {on = !/^(pyspark|setuptools|wheel)==/} on')
install --no-build-isolation -r <(lines '^pyspark==')
# The package itself, as its developer has it: changes show without another install.
echo "$PWD/clients/python/src" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/modelgate.pth"
printf '%s\n' "$want" >"$stamp"
echo "pyclient: $venv is ready"
