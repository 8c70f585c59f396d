"""What goes in and what comes out, as plain data."""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelgate import _proto, errors
from modelgate.upload import Clip, is_reference

_REQUEST = _proto.message("modelgate.v1.PredictRequest")
# What a clip's field, and a batch or a stream, add to make a message of a request, at most.
_ENVELOPE = 64

# An encoded clip, its path, JPEG or PNG frames in order, or a reference "s3://bucket/key" that the server fetches if it is set up to.
Video = bytes | bytearray | str | os.PathLike | Sequence[bytes]


class Decision(enum.Enum):
    """The positive label's score against the threshold."""

    BELOW_THRESHOLD = 1
    AT_OR_ABOVE_THRESHOLD = 2
    UNDECIDED = 3  # no label is positive, or Prediction.reason says why


class Path(enum.Enum):
    """What an answer was computed by."""

    UNKNOWN = 0  # the server is older than this client, or newer and knows more paths
    TEXT = 1
    VIDEO = 2
    FUSION = 3
    LATE_SCORE = 4  # no fusion serves: the weighted mean of the text model's and the video model's scores
    TEXT_ONLY = 5  # the fusion was asked without a clip: the text model alone
    VIDEO_ONLY = 6  # the fusion was asked without a text: the video model alone

    @classmethod
    def _missing_(cls, value: object) -> Path | None:
        return cls.UNKNOWN if isinstance(value, int) else None


@dataclass(frozen=True)
class Part:
    """What one model said towards an answer that is not its own."""

    model: str
    version: str
    digest: str
    label: str  # with the best score
    score: float  # of the positive label, from 0 to 1; the best score where no label is positive
    positive_label: str  # empty if none is
    weight: float  # by how much score counts, from 0 to 1


@dataclass(frozen=True)
class Timings:
    """Where the time of an answer went, in seconds. Of parts, which are computed side by side, the slower one counts."""

    decode: float = 0.0  # from text and clip to tensors
    queue: float = 0.0  # waiting
    compute: float = 0.0  # the run of the model


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
    version: str  # that answered; empty where parts has more than one
    id: str
    truncated: bool  # the text was longer than the model reads
    frames_repeated: bool = False  # the clip has fewer frames than the model takes
    path: Path = Path.UNKNOWN
    parts: tuple[Part, ...] = ()  # of the paths LATE_SCORE, TEXT_ONLY and VIDEO_ONLY
    timings: Timings = Timings()
    digest: str = ""  # of the version's files; empty where parts has more than one
    reason: str = ""  # why it is UNDECIDED although scores are there: label and score are then those of the one part


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


def message(request: Request, model: str, most: int) -> Any:
    """The request as it is sent. What can't be sent, for one if it has more than most bytes, raises InvalidInput; the rest is the
    server's to judge.
    """
    out = header(request, model)
    try:
        clip = None if request.video is None else Clip.of(request.video)
        if clip and too_large(out, clip, most):
            few = "Client.predict uploads it, batches and streams don't"
            raise ValueError(f"the clip has {clip.size} bytes, too many for a message of {most}: {few}")
        if request.video is not None:
            _put_video(out.video, clip, request.video)
        if clip is None and out.ByteSize() + _ENVELOPE > most:
            advice = "fewer or smaller frames, or the clip that they are from" if request.video is not None else "a shorter text"
            raise ValueError(f"the request has {out.ByteSize()} bytes, too many for a message of {most}: send {advice}")
    except (TypeError, ValueError, OSError) as err:
        raise _unsent(err, model) from err
    return out


def header(request: Request, model: str) -> Any:
    """The request without its clip."""
    try:
        out = _REQUEST(model=model, id=request.id, top_k=request.top_k)
        if request.text is not None:
            # Protobuf would take bytes for a text, and the server could not tell.
            if not isinstance(request.text, str):
                raise TypeError(f"the text is of type {type(request.text).__name__}, not str")
            out.text = request.text
    except (TypeError, ValueError) as err:
        raise _unsent(err, model) from err
    return out


def large_clip(request: Request, model: str, most: int) -> Clip | None:
    """The clip of a request that it makes too large for a message."""
    try:
        clip = None if request.video is None else Clip.of(request.video)
    except (ValueError, OSError) as err:
        raise _unsent(err, model) from err
    return clip if clip and too_large(header(request, model), clip, most) else None


def too_large(header: Any, clip: Clip, most: int) -> bool:
    return header.ByteSize() + clip.size + _ENVELOPE > most


def _unsent(err: Exception, model: str) -> errors.ModelgateError:
    return errors.make("INVALID_ARGUMENT", str(err), f"predict with {model}")


def _put_video(out: Any, clip: Clip | None, video: Video) -> None:
    if clip is not None:
        out.clip = clip.read()
    elif is_reference(video):
        out.uri = video
    else:
        out.frames.SetInParent()
        out.frames.images.extend(video)


def prediction(p: Any) -> Prediction:
    """The answer as data. One that is no verdict is an error: whoever compares a score with a threshold must be able to trust it."""
    numbers = [p.score, p.threshold, *(c.score for c in p.classes), *(n for part in p.parts for n in (part.score, part.weight))]
    named = p.label and all(part.model and part.version and part.label for part in p.parts) and (p.parts or p.path != Path.LATE_SCORE.value)
    known = p.decision in {d.value for d in Decision}
    if not known or not named or not all(math.isfinite(n) and 0 <= n <= 1 for n in numbers):
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
        path=Path(p.path),
        parts=tuple(Part(q.model, q.version, q.digest, q.label, q.score, q.positive_label, q.weight) for q in p.parts),
        timings=Timings(p.timings.decode_seconds, p.timings.queue_seconds, p.timings.compute_seconds),
        digest=p.digest,
        reason=p.reason,
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
