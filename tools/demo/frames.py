"""Reads clips as the gateway does: decoded by ffmpeg, some frames chosen, each made small with integer weights."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import servers

COUNT, SIDE = 16, 32


@cache
def ffmpeg() -> str:
    """The program that the gateway finds too."""
    ours = servers.ROOT / ".cache/ffmpeg/ffmpeg"
    found = shutil.which("ffmpeg") or (str(ours) if ours.exists() else None)
    if not found:
        raise SystemExit("demo: there is no ffmpeg: run `make ffmpeg`")
    return found


def run_ffmpeg(*arguments: object) -> bytes:
    """Runs it and returns what it prints."""
    done = subprocess.run([ffmpeg(), "-v", "error", "-nostdin", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: ffmpeg: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def decode(clips: list[tuple[Path, tuple[int, int]]], scratch: Path) -> Iterator[np.ndarray]:
    """Every frame of each clip at its own size (width, height) as RGB: (frames, height, width, 3)."""
    sources, targets = [], []
    for i, (path, (width, height)) in enumerate(clips):
        sources += ["-threads", "1", "-i", path]
        # The flags are PyAV's, and the gateway's: no pixel differs.
        scale = f"scale={width}:{height}:flags=bilinear:interl=-1:in_h_chr_pos=0"
        raw = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]
        targets += ["-map", f"{i}:v:0", "-vf", scale, *raw, scratch / f"{i}.decoded"]
    run_ffmpeg("-y", *sources, *targets)
    for i, (_, (width, height)) in enumerate(clips):
        yield np.fromfile(scratch / f"{i}.decoded", np.uint8).reshape(-1, height, width, 3)


def _weights(size: int, to: int) -> tuple[np.ndarray, int]:
    """How much of each source pixel each pixel gets, as torchvision and Pillow weigh them: integers, with so many bits behind the point."""
    scale = size / to
    widen = max(scale, 1.0)
    exact = np.zeros((to, size))
    for i in range(to):
        center = scale * (i + 0.5)
        low, high = max(int(center - widen + 0.5), 0), min(int(center + widen + 0.5), size)
        exact[i, low:high] = np.maximum(0, 1 - np.abs((np.arange(low, high) - center + 0.5) / widen))
        exact[i] /= exact[i].sum()
    bits = 0
    while bits < 22 and int(0.5 + exact.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.floor(exact * (1 << bits) + 0.5).astype(np.int64), bits


def _shrink(rows: np.ndarray, to: int) -> np.ndarray:
    """Resizes the last axis."""
    weights, bits = _weights(rows.shape[-1], to)
    # Sums stay far below 2**53, so that floats count as exactly as integers, and faster.
    sums = rows.astype(np.float64) @ weights.T.astype(np.float64)
    return np.clip((sums.astype(np.int64) + (1 << (bits - 1))) >> bits, 0, 255).astype(np.uint8)


def resize(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(frames, height, width, 3) to (frames, side, side, 3): first across, then down."""
    across = _shrink(images.transpose(0, 1, 3, 2), side)
    return _shrink(across.transpose(0, 3, 2, 1), side).transpose(0, 3, 1, 2)


def choose(n: int, k: int = COUNT) -> np.ndarray:
    """k of n frames, the first and the last among them."""
    return np.linspace(0, n - 1, k).astype(int)


def read(clips: list[tuple[Path, tuple[int, int]]], scratch: Path) -> list[np.ndarray]:
    """What a model gets of each clip: (COUNT, SIDE, SIDE, 3)."""
    return [resize(every[choose(len(every))]) for every in decode(clips, scratch)]
