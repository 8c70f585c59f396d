#!/usr/bin/env bash
# Sees that there is an ffmpeg to decode clips with: the system's where there is one, else Debian's package (as root), else the
# static program inside the Python package imageio-ffmpeg, which goes to .cache/ffmpeg.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v ffmpeg >/dev/null || [ -x .cache/ffmpeg/ffmpeg ]; then
  exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "ffmpeg: installing Debian's package"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get update -q && apt-get install -y -q --no-install-recommends ffmpeg; } >"$log" 2>&1; then
    exit 0
  fi
  tail -n 5 "$log" >&2
  echo "ffmpeg: apt-get could not install it; the Python package's is next" >&2
fi

version=0.8.1
echo "ffmpeg: fetching the static one of imageio-ffmpeg $version"
mkdir -p .cache
scratch=$(mktemp -d .cache/ffmpeg.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all: --dest "$scratch" "imageio-ffmpeg==$version"
python3 - "$scratch" <<'PY'
import pathlib, shutil, sys, zipfile

scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if "/binaries/ffmpeg-" in n]
    with archive.open(name) as source, open(scratch / "ffmpeg", "wb") as target:
        shutil.copyfileobj(source, target)
(scratch / "ffmpeg").chmod(0o755)
wheel.unlink()
PY
chmod 755 "$scratch"
rm -rf .cache/ffmpeg
mv "$scratch" .cache/ffmpeg
trap - EXIT
echo "ffmpeg: .cache/ffmpeg/ffmpeg"
