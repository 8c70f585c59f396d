#!/usr/bin/env bash
# Builds the tokenizer crate and puts its static library where the Go package links it from. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

crate=inference/text/hf/tokenizers
lib=.cache/lib/libmodelgate_tokenizers.a
stamp=$lib.sources

# What the library is made from: the sources and the compiler.
sources() {
	cat "$crate/Cargo.toml" "$crate/Cargo.lock" "$crate"/src/*.rs tools/build-tokenizers.sh
	rustc --version
}

if ! command -v cargo >/dev/null; then
	echo "tokenizers: cargo is missing; install Rust 1.85 or newer, see https://rustup.rs" >&2
	exit 1
fi

want=$(sources | sha256sum)
if [[ -f $lib && -f $stamp && $(<"$stamp") == "$want" ]]; then
	echo "tokenizers: $lib is up to date"
	exit 0
fi

mkdir -p .cache/lib .cache/cargo
# Several builds may be started at once; the second finds the work done.
exec 9>.cache/lib/.tokenizers.lock
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $lib && -f $stamp && $(<"$stamp") == "$want" ]]; then
	echo "tokenizers: $lib is up to date"
	exit 0
fi

echo "tokenizers: building $lib (one to three minutes the first time)"
log=.cache/cargo/build.log
if ! CARGO_TARGET_DIR=$PWD/.cache/cargo cargo build --quiet --release --locked --manifest-path "$crate/Cargo.toml" >"$log" 2>&1 9>&-; then
	tail -n 40 "$log" >&2
	echo "tokenizers: the build ended with an error; the whole output is in $log" >&2
	exit 1
fi
cp .cache/cargo/release/libmodelgate_tokenizers.a "$lib.new"
strip --strip-debug "$lib.new" 2>/dev/null || true
mv "$lib.new" "$lib"
echo "$want" >"$stamp"
