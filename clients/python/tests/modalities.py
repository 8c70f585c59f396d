"""A gateway that serves texts and clips."""

import contextlib
import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clips import clip_bundle
from gateway import ROOT, Gateway, add_version, gateway
from modelgate import Client
from modelgate.publish import bundle, golden

SHAPE = ["b", 4, 3, 16, 16]
FRAMES = [golden.png(frame) for frame in np.random.default_rng(7).integers(0, 256, (4, 20, 20, 3), np.uint8)]
TEXT = "worst customer service ever"


def ffmpeg() -> str:
    found = shutil.which("ffmpeg") or shutil.which("ffmpeg", path=ROOT / ".cache/ffmpeg")
    assert found, "there is no ffmpeg: run make ffmpeg"
    return found


@functools.cache
def mp4() -> bytes:
    """A clip of one second."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "clip.mp4"
        source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=8:duration=1"]
        command = [ffmpeg(), "-nostdin", "-loglevel", "error", *source, "-c:v", "mpeg4", "-pix_fmt", "yuv420p", made]
        subprocess.run(command, check=True, timeout=60)
        return made.read_bytes()


def padding(clip: bytes, size: int) -> bytes:
    """The start of what makes an mp4 clip size bytes large and says nothing; zeros are to follow."""
    return (size - len(clip)).to_bytes(4, "big") + b"free"


def padded(clip: bytes, size: int) -> bytes:
    return (clip + padding(clip, size)).ljust(size, b"\0")


def add_clips(models: Path, model: str, version: str, with_text: bool = False) -> None:
    """Adds a model of clips to a folder of models, whole or not at all."""
    scratch = clip_bundle(models.parent / f"{model}.new", SHAPE, with_text)
    bundle.write_settings(scratch, positive_label="harmful")
    (scratch / "metrics.json").write_text(json.dumps({"eval_f1": 0.9}))
    (models / model).mkdir(parents=True, exist_ok=True)
    scratch.rename(models / model / version)


@contextlib.contextmanager
def both_served(folder: Path, *settings: str) -> Iterator[tuple[Gateway, Client]]:
    """A gateway with a text model, a video model and no fusion."""
    add_version(folder / "models", "1")
    add_clips(folder / "models", "video", "3")
    (folder / "models/fusion").mkdir()  # so that the gateway knows of it
    options = [part for s in ("update_interval=1s", f"ffmpeg={ffmpeg()}", *settings) for part in ("--set", s)]
    with gateway(folder, "--models", str(folder / "models"), *options) as g, Client(g.grpc) as c:
        g.wait_for("1")
        g.wait_for("3", "video")
        yield g, c
