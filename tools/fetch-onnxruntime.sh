#!/usr/bin/env bash
# Puts the ONNX Runtime library into .cache/onnxruntime/<version>/ and points .cache/onnxruntime/lib at it.
#
# The library comes out of the official Python wheel, whose version and sha256 are those in tools/requirements.txt, so that the
# gateway and the Python side compute with the same code.
set -euo pipefail
cd "$(dirname "$0")/.."

list=tools/requirements.txt
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' "$list")

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) platforms="manylinux_2_27_x86_64 manylinux_2_28_x86_64" library=libonnxruntime.so ;;
  Linux-aarch64) platforms="manylinux_2_27_aarch64 manylinux_2_28_aarch64" library=libonnxruntime.so ;;
  Darwin-arm64) platforms="macosx_14_0_arm64" library=libonnxruntime.dylib ;;
  *)
    echo "onnxruntime: no official wheel for $(uname -s) $(uname -m): Linux on x86-64 or arm64 and macOS on arm64 are supported" >&2
    exit 1
    ;;
esac

folder=.cache/onnxruntime/$version
if [ -e "$folder/$library" ] && [ "$(readlink .cache/onnxruntime/lib)" = "$version" ]; then
  exit 0
fi

echo "onnxruntime: fetching $version (checked against its sha256)"
mkdir -p .cache/onnxruntime
scratch=$(mktemp -d .cache/onnxruntime/fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# The lines of this one package, hashes included.
awk '/^[A-Za-z]/ {on = /^onnxruntime==/} on' "$list" >"$scratch/requirements.txt"
options=()
for platform in $platforms; do
  options+=(--platform "$platform")
done
python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --require-hashes --only-binary=:all: \
  --implementation cp --python-version 312 "${options[@]}" --dest "$scratch" -r "$scratch/requirements.txt"

# Wheels are zip files; Python reads them everywhere, unzip is not everywhere.
python3 - "$scratch" "$library" <<'PY'
import pathlib, shutil, sys, zipfile

scratch, library = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = scratch.glob("*.whl")
unpacked = scratch / "unpacked"
unpacked.mkdir()
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        base = name.rsplit("/", 1)[-1]
        # libonnxruntime.so.1.2.3 or libonnxruntime.1.2.3.dylib, and the licences that go with it.
        if base.startswith("libonnxruntime.") or base in ("LICENSE", "ThirdPartyNotices.txt"):
            with archive.open(name) as source, open(unpacked / base, "wb") as target:
                shutil.copyfileobj(source, target)
(found,) = unpacked.glob("libonnxruntime.*")
found.rename(unpacked / library)
(unpacked / library).chmod(0o755)
PY

rm -rf "$folder"
mv "$scratch/unpacked" "$folder"
ln -sfn "$version" .cache/onnxruntime/lib
echo "onnxruntime: $folder/$library"
