"""Makes the demo's clips: some flash more than three times a second, which can bring on a seizure, the others are calm.

Pictures are drawn from a seed and encoded by ffmpeg: in seven sizes, at four frame rates, for 1.5 to 3 seconds, as h264 in mp4, vp8 in
webm or MPEG-4 in avi.

python tools/demo/clips.py       draws, encodes and reads all of them into .cache/demo-clips
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import frames
import numpy as np
import servers

HOME = servers.ROOT / ".cache/demo-clips"
TRAINING, HELD_OUT = 240, 120
BATCH = 8
SIZES = [(160, 120), (176, 144), (192, 108), (108, 192), (240, 136), (320, 180), (128, 128)]
RATES = [15, 24, 25, 30]
CODECS = {
    "mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "26", "-movflags", "+faststart"],
    "webm": ["-c:v", "libvpx", "-deadline", "good", "-cpu-used", "5", "-b:v", "800k"],
    "avi": ["-c:v", "mpeg4", "-q:v", "5"],
}


@dataclass(frozen=True)
class Clip:
    """What a clip is made of: all of it follows from its number."""

    number: int
    kind: str
    size: tuple[int, int]  # width, height
    rate: int
    length: int  # frames
    container: str

    @property
    def flashing(self) -> bool:
        return self.kind in FLASHING

    @property
    def held_out(self) -> bool:
        return self.number >= TRAINING

    @property
    def path(self) -> Path:
        return home() / f"{self.number:03d}-{self.kind}.{self.container}"


def describe(number: int) -> Clip:
    """Every second clip flashes, so that both classes are as large among the first clips as among all."""
    rng = np.random.default_rng([number, 1])
    kind = str(rng.choice(sorted(FLASHING if number % 2 else CALM)))
    rate = int(rng.choice(RATES))
    container = str(rng.choice(sorted(CODECS), p=[0.15, 0.6, 0.25]))
    return Clip(number, kind, SIZES[rng.integers(len(SIZES))], rate, int(rate * rng.uniform(1.5, 3)), container)


# What is drawn. A painter gives a clip's frames as floats from 0 to 1, (frames, height, width, 3).


class Brush:
    """A clip's random numbers, and what painters have in common."""

    def __init__(self, clip: Clip) -> None:
        self.rng = np.random.default_rng([clip.number, 2])
        (self.width, self.height), self.n, self.rate = clip.size, clip.length, clip.rate
        self.seconds = np.arange(self.n) / clip.rate

    def picture(self) -> np.ndarray:
        """A random picture: large soft patches under smaller ones, in the colours of some light."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        out = np.zeros((self.height, self.width, 3), np.float32)
        for scale in (90, 40, 15):
            grid = self.rng.random((self.height // scale + 3, self.width // scale + 3, 3), np.float32)
            out += grid[(y / scale).astype(int), (x / scale).astype(int)] * scale / 145
        return np.clip(out * self.rng.uniform(0.4, 1.2) * self.rng.uniform(0.7, 1, 3) + self.rng.uniform(0, 0.2), 0, 1).astype(np.float32)

    def panned(self, speed: float) -> np.ndarray:
        """A picture that the camera moves over, in pixels a frame."""
        picture, (dy, dx) = self.picture(), self.rng.uniform(-1, 1, 2) * speed
        return np.stack([np.roll(picture, (int(dy * i), int(dx * i)), (0, 1)) for i in range(self.n)])

    def scene(self) -> np.ndarray:
        """Something to flash over, or to stay calm: still, panned, or with a thing that moves."""
        kind = self.rng.integers(3)
        out = self.panned(0 if kind == 0 else self.rng.uniform(0.5, 4))
        return self.thing(out) if kind == 2 else out

    def thing(self, out: np.ndarray) -> np.ndarray:
        """Lets a rectangle of one colour move through."""
        h, w = (int(side * self.rng.uniform(0.15, 0.4)) for side in (self.height, self.width))
        (y, x), (dy, dx) = self.rng.uniform(0, 1, 2) * (self.height, self.width), self.rng.uniform(-6, 6, 2)
        colour = self.rng.random(3)
        for i, frame in enumerate(out):
            top, left = int(y + i * dy) % self.height, int(x + i * dx) % self.width
            frame[top : top + h, left : left + w] = colour
        return out

    def square(self, low: float = 3.5, high: float = 12) -> np.ndarray:
        """On and off, for each frame, that often a second. No faster than frames can show."""
        often = self.rng.uniform(low, min(high, self.rate / 2.2))
        return ((self.seconds * often + self.rng.random()) % 1 < self.rng.uniform(0.3, 0.7)).astype(np.float32)[:, None, None, None]

    def moments(self, most: int, apart: float = 0.6) -> list[int]:
        """Frames at which something happens once, far enough from each other."""
        at = np.cumsum(apart * self.rate * self.rng.uniform(1, 2, most)).astype(int)
        return [int(i) for i in at[: self.rng.integers(1, most + 1)] if i < self.n - 2]


def pan(b: Brush) -> np.ndarray:
    return b.panned(b.rng.uniform(0, 12))


def things(b: Brush) -> np.ndarray:
    out = b.panned(0)
    for _ in range(b.rng.integers(1, 6)):
        out = b.thing(out)
    return out


def grain(b: Brush) -> np.ndarray:
    out = b.scene()
    return out + b.rng.standard_normal(out.shape, np.float32) * np.float32(b.rng.uniform(0.05, 0.2))


def fade(b: Brush) -> np.ndarray:
    """Brighter and darker, at most once a second."""
    wave = np.sin(2 * np.pi * (b.seconds * b.rng.uniform(0.2, 1) + b.rng.random()))
    return b.scene() * (0.6 + b.rng.uniform(0.2, 0.4) * wave)[:, None, None, None]


def cuts(b: Brush) -> np.ndarray:
    """Scene after scene, cut hard; each is shown for half a second and more."""
    out = b.scene()
    for at in b.moments(4):
        out[at:] = b.scene()[at:]
    return out


def photo(b: Brush) -> np.ndarray:
    """A photographer's flash, once to three times, never more than one in half a second."""
    out = b.scene()
    for at in b.moments(3):
        out[at : at + max(1, b.rate // 15)] += b.rng.uniform(0.4, 0.9)
    return out


def shake(b: Brush) -> np.ndarray:
    """A camera held in the hand."""
    picture, far = b.picture(), b.rng.uniform(2, 9)
    return np.stack([np.roll(picture, tuple(b.rng.normal(0, far, 2).astype(int)), (0, 1)) for _ in range(b.n)])


def stripes(b: Brush) -> np.ndarray:
    """Bars of high contrast that move: each place flickers, the whole does not."""
    wide, speed = b.rng.integers(6, 30), b.rng.uniform(1, 8)
    x = np.arange(b.width)[None, :] + (np.arange(b.n) * speed)[:, None]
    bars = (x // wide % 2)[:, None, :, None] * np.float32(b.rng.uniform(0.4, 1))
    return np.broadcast_to(bars * b.rng.uniform(0.5, 1, 3), (b.n, b.height, b.width, 3)).astype(np.float32)


def strobe(b: Brush) -> np.ndarray:
    return b.scene() * b.rng.uniform(0.1, 0.6) + b.square() * b.rng.uniform(0.4, 0.9)


def flicker(b: Brush) -> np.ndarray:
    """A light that flickers: a tenth of the full brightness is a flash already."""
    return b.scene() * (1 - b.square() * b.rng.uniform(0.25, 0.7)) + 0.1


def colours(b: Brush) -> np.ndarray:
    """Saturated red in turn with another colour."""
    other = b.rng.permutation([b.rng.uniform(0, 0.2), b.rng.uniform(0, 0.6), 1.0])
    on, share = b.square(), b.rng.uniform(0.5, 1)
    return (1 - share) * b.scene() + share * (on * [1.0, 0.05, 0.05] + (1 - on) * other)


def corner(b: Brush) -> np.ndarray:
    """Only a part of the picture flashes: a quarter and more."""
    out, on = b.scene(), b.square()
    h, w = (int(side * b.rng.uniform(0.5, 0.9)) for side in (b.height, b.width))
    top, left = b.rng.integers(0, b.height - h + 1), b.rng.integers(0, b.width - w + 1)
    out[:, top : top + h, left : left + w] += on * b.rng.uniform(0.4, 0.8)
    return out


def alternation(b: Brush) -> np.ndarray:
    """Two scenes in turn, faster than anyone would cut."""
    on = b.square(3.5, 8)
    return on * b.scene() + (1 - on) * b.scene() * b.rng.uniform(0, 0.5)


def burst(b: Brush) -> np.ndarray:
    """Calm, and then for a second or so it flashes."""
    out, on = b.scene(), b.square(5, 12)
    start = int(b.rng.uniform(0, 0.4) * b.n)
    end = start + max(int(0.9 * b.rate), int(0.5 * b.n))
    out[start:end] += on[start:end] * b.rng.uniform(0.4, 0.8)
    return out


CALM = {p.__name__: p for p in (pan, things, grain, fade, cuts, photo, shake, stripes)}
FLASHING = {p.__name__: p for p in (strobe, flicker, colours, corner, alternation, burst)}


def draw(clip: Clip) -> np.ndarray:
    """The frames as RGB bytes, (frames, height, width, 3)."""
    return (np.clip((CALM | FLASHING)[clip.kind](Brush(clip)), 0, 1) * 255).astype(np.uint8)


def encode(clips: list[Clip], scratch: Path) -> None:
    """Draws the clips and writes them, all by one ffmpeg: it takes longer to start than to encode one."""
    sources, targets = [], []
    for i, clip in enumerate(clips):
        raw, (w, h) = scratch / f"{i}.rgb", clip.size
        raw.write_bytes(draw(clip).tobytes())
        sources += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", str(clip.rate), "-i", raw]
        # One thread and no dates: the same bytes every time.
        targets += ["-map", str(i), *CODECS[clip.container], "-pix_fmt", "yuv420p", "-threads", "1"]
        targets += ["-fflags", "+bitexact", "-flags:v", "+bitexact", clip.path]
    frames.run_ffmpeg("-y", *sources, *targets)


def make(clips: list[Clip]) -> list[np.ndarray]:
    """Writes the clips, reads them again and returns the frames that the model gets of each."""
    with tempfile.TemporaryDirectory(dir=home()) as scratch:
        encode(clips, Path(scratch))
        return frames.read([(clip.path, clip.size) for clip in clips], Path(scratch))


@cache
def home() -> Path:
    """The folder of the clips that this code and this ffmpeg make."""
    digest = hashlib.sha256(frames.run_ffmpeg("-version"))
    for source in (Path(__file__), Path(frames.__file__)):
        digest.update(source.read_bytes())
    return HOME / digest.hexdigest()[:16]


def everything() -> list[Clip]:
    return [describe(n) for n in range(TRAINING + HELD_OUT)]


def made() -> int:
    """How many clips there are by now."""
    return sum(1 for _ in home().glob("*-*")) if home().is_dir() else 0


def ready() -> bool:
    return (home() / "frames.npy").exists()


def make_all() -> None:
    """Makes the clips, unless they are there, and the file of what the model gets of each."""
    HOME.parent.mkdir(exist_ok=True)
    # Of two that make them at once the second waits, and finds the work done.
    with HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready():
            _make_all()


def _make_all() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    home().mkdir(parents=True)
    clips = everything()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        batches = pool.map(make, (clips[i : i + BATCH] for i in range(0, len(clips), BATCH)))
        read = np.stack([one for batch in batches for one in batch])
    np.save(home() / "part.npy", read)
    (home() / "part.npy").rename(home() / "frames.npy")


def load() -> np.ndarray:
    """What the model gets of every clip, in order: (clips, frames, height, width, 3), bytes."""
    return np.load(home() / "frames.npy")


if __name__ == "__main__":
    make_all()
