"""What goes in and what comes out, as plain data."""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelgate import _proto, errors

_REQUEST = _proto.message("modelgate.v1.PredictRequest")

# An encoded clip, its path, or JPEG or PNG frames in order.
Video = bytes | bytearray | str | os.PathLike | Sequence[bytes]


class Decision(enum.Enum):
    """The positive label's score against the threshold."""

    BELOW_THRESHOLD = 1
    AT_OR_ABOVE_THRESHOLD = 2
    UNDECIDED = 3


@dataclass(frozen=True)
class ClassScore:
    """One label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The answer to one input."""

    label: str  # with the best score
    score: float  # of the positive label, from 0 to 1; the best score where no label is positive
    decision: Decision
    threshold: float
    positive_label: str  # empty if none is
    classes: tuple[ClassScore, ...]  # best first
    model: str
    version: str  # that answered
    id: str
    truncated: bool  # the text was longer than the model reads
    frames_repeated: bool = False  # the clip has fewer frames than the model takes


@dataclass(frozen=True)
class Request:
    """One input of a batch or a stream. An id of the caller's own is returned with the answer."""

    text: str | None = None
    video: Video | None = None
    id: str = ""
    top_k: int = 0


@dataclass(frozen=True)
class Result:
    """A prediction or an error, never both."""

    id: str
    prediction: Prediction | None = None
    error: errors.ModelgateError | None = None

    def get(self) -> Prediction:
        """The prediction; raises the error."""
        if self.prediction is None:
            raise self.error or errors.make("INTERNAL", "there is neither a prediction nor an error")
        return self.prediction


def message(request: Request, model: str) -> Any:
    """The request as it is sent. What can't be sent at all raises InvalidInput; the rest is the server's to judge."""
    try:
        out = _REQUEST(model=model, id=request.id, top_k=request.top_k)
        if request.text is not None:
            # Protobuf would take bytes for a text, and the server could not tell.
            if not isinstance(request.text, str):
                raise TypeError(f"the text is of type {type(request.text).__name__}, not str")
            out.text = request.text
        if request.video is not None:
            _put_video(out.video, request.video)
    except (TypeError, ValueError, OSError) as err:
        raise errors.make("INVALID_ARGUMENT", str(err), f"predict with {model}") from err
    return out


def _put_video(out: Any, video: Video) -> None:
    if isinstance(video, (bytes, bytearray)):
        out.clip = bytes(video)
    elif isinstance(video, (str, os.PathLike)):
        out.clip = Path(video).read_bytes()
    else:
        out.frames.SetInParent()
        out.frames.images.extend(video)


def prediction(p: Any) -> Prediction:
    """The answer as data. One that is no verdict is an error: whoever compares a score with a threshold must be able to trust it."""
    numbers = [p.score, p.threshold, *(c.score for c in p.classes)]
    known = p.decision in {d.value for d in Decision}
    if not known or not p.label or not all(math.isfinite(n) and 0 <= n <= 1 for n in numbers):
        raise errors.make("INTERNAL", f"the server sent an answer that is no verdict (version {p.version!r} of {p.model!r})")
    return Prediction(
        label=p.label,
        score=p.score,
        decision=Decision(p.decision),
        threshold=p.threshold,
        positive_label=p.positive_label,
        classes=tuple(ClassScore(c.label, c.score) for c in p.classes),
        model=p.model,
        version=p.version,
        id=p.id,
        truncated=p.truncated,
        frames_repeated=p.frames_repeated,
    )


def result(item: Any, doing: str) -> Result:
    """An answer of a batch or a stream."""
    kind = item.WhichOneof("result")
    if kind == "error":
        return Result(item.id, error=errors.of_status(item.error, doing))
    if kind is None:
        return Result(item.id, error=errors.make("INTERNAL", "the server sent neither a prediction nor an error", doing))
    try:
        return Result(item.id, prediction(item.prediction))
    except errors.ModelgateError as err:
        return Result(item.id, error=err)
