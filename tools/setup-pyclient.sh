#!/usr/bin/env bash
# Makes a Python environment for the tests of clients/python, each package checked against its sha256.
#
#   tools/setup-pyclient.sh        .cache/pyclient-venv        all extras but torch; a second call returns at once
#   tools/setup-pyclient.sh torch  .cache/pyclient-torch-venv  torch and transformers, 6 GB, for `make test-torch`
#   tools/setup-pyclient.sh lock   renews clients/python/requirements-{test,torch}.txt from the .in files beside them
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
case "${1:-test}" in
  test) list=clients/python/requirements-test.txt venv=.cache/pyclient-venv about="MLflow's client, ONNX, pyspark (one to three minutes the first time)" ;;
  torch) list=clients/python/requirements-torch.txt venv=.cache/pyclient-torch-venv about="torch and transformers (6 GB, some minutes the first time)" ;;
  lock)
    locker=.cache/pyclient-lock-venv
    [ -x "$locker/bin/uv" ] || { "$python" -m venv "$locker" && "$locker/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9; }
    for list in clients/python/requirements-test clients/python/requirements-torch; do
      echo "lock: $list.txt"
      "$locker/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
        -o "$list.txt" "$list.in"
    done
    exit 0
    ;;
  *) echo "usage: tools/setup-pyclient.sh [test|torch|lock]" >&2; exit 2 ;;
esac

if [ "$venv" = .cache/pyclient-venv ] && ! command -v java >/dev/null; then
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

echo "pyclient: $venv: $about"
rm -rf "$venv"
"$python" -m venv "$venv"
install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps "$@"
}
entries() { # entries PATTERN: the lines of the list for the packages whose name matches, hashes included
  awk -v want="^($1)==" '/^[A-Za-z]/ {on = $0 ~ want} on' "$list"
}
others() { # others PATTERN: the rest
  awk -v not="^($1)==" '/^[A-Za-z]/ {on = $0 !~ not} on' "$list"
}
# pyspark is published as source only; it is built with the locked setuptools, and nothing else is fetched for that.
install --only-binary=:all: -r <(others pyspark)
if grep -q '^pyspark==' "$list"; then
  install --no-build-isolation -r <(entries pyspark)
fi
# The package itself, as its developer has it: changes show without another install.
echo "$PWD/clients/python/src" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/modelgate.pth"
printf '%s\n' "$want" >"$stamp"
echo "pyclient: $venv is ready"
