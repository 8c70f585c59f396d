"""Sends a clip that is too large for a message: in parts, read as they are sent."""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from modelgate import _proto, errors

_UPLOAD = _proto.message("modelgate.v1.UploadPredictRequest")
_CHUNK = 256 << 10


@dataclass(frozen=True)
class Clip:
    """An encoded clip, in memory or in a file, and its size in bytes."""

    source: bytes | bytearray | Path
    size: int

    @classmethod
    def of(cls, video: Any) -> Clip | None:
        """The clip, if that is what video is: neither frames nor a reference. Raises OSError or ValueError for a file that isn't one."""
        if isinstance(video, (bytes, bytearray)):
            return cls(video, len(video))
        if not isinstance(video, (str, os.PathLike)) or is_reference(video):
            return None
        info = Path(video).stat()
        # A pipe could be read once only, and a device for ever.
        if not stat.S_ISREG(info.st_mode):
            raise ValueError(f"{os.fspath(video)} is not a regular file")
        return cls(Path(video), info.st_size)

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """The clip from its start, a few bytes at a time. Part of a clip is none: a file that gets shorter meanwhile is a ValueError."""
        if not isinstance(self.source, Path):
            for start in range(0, self.size, size):
                yield bytes(self.source[start : start + size])
            return
        left = self.size
        with self.source.open("rb") as file:
            while left:
                chunk = file.read(min(size, left))
                if not chunk:
                    raise ValueError(f"{self.source} became shorter while it was read")
                left -= len(chunk)
                yield chunk

    def read(self) -> bytes:
        """The whole clip."""
        return b"".join(self.chunks(max(self.size, 1)))


def is_reference(video: Any) -> bool:
    """Whether video names an object that the server fetches itself."""
    return isinstance(video, str) and video.startswith("s3://")


def send(call: Any, header: Any, clip: Clip, *, timeout: float, attempts: int, metadata: Any, doing: str) -> Any:
    """Calls UploadPredict and returns its prediction.

    gRPC repeats no call once much of it is sent. So it is done here, from the clip's start, while the server is unavailable;
    timeout bounds all attempts together.
    """
    end = time.monotonic() + timeout
    for attempt in range(1, attempts + 1):
        try:
            return _attempt(call, header, clip, max(end - time.monotonic(), 0), metadata, doing)
        except errors.Unavailable:
            pause = min(0.1 * 2 ** (attempt - 1), 2.0) * random.uniform(0.8, 1.2)
            if attempt == attempts or time.monotonic() + pause >= end:
                raise
            time.sleep(pause)
    raise AssertionError("attempts must be positive")


def _attempt(call: Any, header: Any, clip: Clip, timeout: float, metadata: Any, doing: str) -> Any:
    parts = _Parts(header, clip)
    rpc = call.future(parts, timeout=timeout, metadata=metadata)
    try:
        answer, failed = rpc.result(), None
    except grpc.RpcError as err:
        answer, failed = None, err
    finally:
        rpc.cancel()
        parts.end()
    if parts.error is not None:
        raise errors.make("INVALID_ARGUMENT", str(parts.error), doing) from parts.error
    if failed is not None:
        raise errors.of_call(failed, doing) from failed
    if not answer.HasField("prediction"):
        raise errors.make("INTERNAL", "the server sent no prediction", doing)
    return answer.prediction


class _Parts:
    """The messages of one attempt, as gRPC's own thread reads them."""

    def __init__(self, header: Any, clip: Clip) -> None:
        self._header, self._chunks = header, clip.chunks()
        self.error: Exception | None = None

    def __iter__(self) -> _Parts:
        return self

    def end(self) -> None:
        """Lets the clip go: an exception that is kept keeps what it came through, and would keep a file open."""
        self._chunks = iter(())

    def __next__(self) -> Any:
        if self._header is not None:
            header, self._header = self._header, None
            return _UPLOAD(header=header)
        try:
            return _UPLOAD(chunk=next(self._chunks))
        except (OSError, ValueError) as err:
            # gRPC would only log it. The caller is told; an answer to the part that was sent counts for nothing.
            self.error = err
            raise StopIteration from err
