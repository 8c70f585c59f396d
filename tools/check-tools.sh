#!/usr/bin/env bash
# Sees that the compilers are there, and with `check-tools.sh tests` what only tests need. On Debian as root it installs those that apt has in a version that will do; elsewhere it says what to do.
set -euo pipefail

packages=()
command -v cc >/dev/null || command -v gcc >/dev/null || packages+=(gcc libc6-dev)
command -v c++ >/dev/null || command -v g++ >/dev/null || packages+=(g++)
command -v git >/dev/null || packages+=(git)
command -v python3 >/dev/null || packages+=(python3 python3-venv)
if [ "${1:-}" = tests ] && [ "$(uname -s)" = Linux ]; then command -v strace >/dev/null || packages+=(strace); fi # places failpoints

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "tools: installing with apt-get: ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
  else
    echo "tools: missing: ${packages[*]}: install these packages (names as Debian has them)" >&2
    exit 1
  fi
fi

# Debian's own Go and Rust are too old, so these two are the reader's to install.
missing=0
command -v go >/dev/null || { echo "tools: Go 1.26 or newer is missing: see https://go.dev/doc/install" >&2; missing=1; }
command -v cargo >/dev/null || { echo "tools: Rust 1.85 or newer is missing: see https://rustup.rs" >&2; missing=1; }
exit "$missing"
