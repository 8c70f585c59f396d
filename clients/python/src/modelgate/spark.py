"""Scores Spark DataFrames: a function for mapInPandas.

    scored = rows.mapInPandas(scorer("gateway:8001", text="clean_text"), schema=output_schema(rows.schema))

Every row comes out once, with the columns of COLUMNS added. A row that could not be scored has its error in error_code and error and
nothing in the columns of the verdict: never a low score. One bad row never fails the others, nor the job.

Where nothing was decided although scores are there, reason says why, and label, score and threshold are null: what one model alone
said is no verdict. It stands in parts.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelgate import errors
from modelgate.client import Client
from modelgate.results import Decision, Prediction, Request, Result

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql.types import StructType

# The columns that are added, with their types in Spark's words. No value of error_code is longer than 20 characters, and no error
# longer than MAX_ERROR, so that a narrow column of a database never loses a batch.
COLUMNS = {
    "label": "string",
    "score": "double",
    "decision": "string",
    "threshold": "double",
    "truncated": "boolean",
    "path": "string",
    "model": "string",
    "version": "string",  # "7"; of several models "text 3 + video 2"
    "digest": "string",  # null where several versions answered
    "parts": "array<struct<model:string,version:string,digest:string,label:string,score:double,positive_label:string,weight:double>>",
    "reason": "string",
    "error_code": "string",
    "error": "string",
}
MAX_ERROR = 500
# Rows in one stream: enough to make it worth opening, few enough to bound what is repeated after a break.
_CHUNK = 1024
# Clips that one task uploads at a time.
_UPLOADS = 4


def output_schema(schema: StructType, prefix: str = "") -> StructType:
    """The schema of a DataFrame with the columns of a verdict added."""
    from pyspark.sql.types import StructType, _parse_datatype_string

    taken = {f.name.lower() for f in schema.fields} & {(prefix + name).lower() for name in COLUMNS}
    if taken:
        raise ValueError(f"the DataFrame has columns {sorted(taken)} already: give a prefix")
    added = _parse_datatype_string(", ".join(f"`{prefix}{name}` {kind}" for name, kind in COLUMNS.items()))
    return StructType([*schema.fields, *added.fields])


def scorer(
    target: str,
    *,
    text: str | None = None,
    video: str | None = None,
    model: str = "text",
    prefix: str = "",
    window: int = 64,
    attempts: int = 6,
    timeout: float = 120.0,
    client: Mapping[str, Any] | None = None,
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """A function for mapInPandas that scores rows with a model through PredictStream.

    text names the column with the text; video that with the clip: its bytes, an array of JPEG or PNG frames, its path, which the
    executors must be able to read, or "s3://bucket/key" for a server that fetches clips itself. A null means that the row has none.
    A clip too large for a stream is uploaded on its own. window bounds the rows without an answer. What fails for now (the server
    restarts, its queue is full) is sent again, attempts times in all, further and further apart; timeout bounds one attempt, in
    seconds. client holds further arguments of Client.
    """
    if text is None and video is None:
        raise ValueError("name the column of the text, of the video, or both")
    if attempts < 1:
        raise ValueError("attempts must be positive")
    columns, arguments = {"text": text, "video": video}, {"window": window, **(client or {})}

    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        with Client(target, **arguments) as c:
            for frame in frames:
                requests = _requests(frame, columns)
                answers: list[Result] = []
                for start in range(0, len(requests), _CHUNK):
                    answers += _score(c, model, requests[start : start + _CHUNK], attempts, timeout)
                yield _with_answers(frame, answers, prefix)

    return score


def _requests(frame: pd.DataFrame, columns: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """One input a row."""
    present = {kind: frame[name] for kind, name in columns.items() if name is not None}
    return [{kind: _plain(column.iloc[i]) for kind, column in present.items()} for i in range(len(frame))]


def _plain(value: Any) -> Any:
    """What a cell holds; None for any null. What is neither text nor clip is left for the client to refuse: it isn't missing."""
    import pandas as pd

    if isinstance(value, (str, bytes, bytearray)):
        return value
    if pd.api.types.is_list_like(value):
        return list(value)
    return None if pd.isna(value) else value


def _score(client: Client, model: str, inputs: list[dict[str, Any]], attempts: int, timeout: float) -> list[Result]:
    """One result an input, in their order."""
    final: dict[int, Result] = {}
    for i, fields in enumerate(inputs):
        if all(value is None for value in fields.values()):
            final[i] = Result(str(i), error=errors.make("INVALID_ARGUMENT", "the row has nothing to score: its input is null"))
    for attempt in range(attempts):
        open_rows = [i for i in range(len(inputs)) if i not in final or _again(final[i])]
        if not open_rows:
            break
        if attempt:
            time.sleep(min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.0))
        requests = [Request(id=str(i), **inputs[i]) for i in open_rows]
        final |= _attempt(client, model, requests, timeout)
    return [final[i] for i in range(len(inputs))]


def _attempt(client: Client, model: str, requests: list[Request], timeout: float) -> dict[int, Result]:
    """One result a request, whatever happens."""
    large = {r.id for r in requests if _uploads(client, r, model)}
    streamed = [r for r in requests if r.id not in large]
    out: dict[int, Result] = {}
    broken = errors.make("INTERNAL", "the server ended the stream without an answer to this row")
    try:
        for result in client.predict_stream(streamed, model=model, timeout=timeout) if streamed else ():
            out[int(result.id)] = result
    except errors.ModelgateError as err:
        broken = err
    for r in streamed:
        out.setdefault(int(r.id), Result(r.id, error=broken))

    def send(r: Request) -> Result:
        try:
            return Result(r.id, client.predict(r.text, r.video, model=model, id=r.id, timeout=timeout))
        except errors.ModelgateError as err:
            return Result(r.id, error=err)

    with concurrent.futures.ThreadPoolExecutor(_UPLOADS) as pool:
        out |= {int(result.id): result for result in pool.map(send, (r for r in requests if r.id in large))}
    return out


def _uploads(client: Client, request: Request, model: str) -> bool:
    try:
        return client.uploads(request, model=model)
    except errors.ModelgateError:
        return False  # the stream says what is wrong with it


def _again(result: Result) -> bool:
    return result.error is not None and result.error.temporary


def _with_answers(frame: pd.DataFrame, answers: list[Result], prefix: str) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(answer) for answer in answers]
    added = {
        # Of type object, so that a null stays a null: in a column of floats it would become a NaN.
        prefix + name: pd.Series([row.get(name) for row in rows], index=frame.index, dtype=object)
        for name in COLUMNS
    }
    return frame.assign(**added)


def _row(answer: Result) -> dict[str, Any]:
    if answer.prediction is None:
        err = answer.error or errors.make("INTERNAL", "there is neither a prediction nor an error")
        return {"error_code": err.code[:20], "error": err.message[:MAX_ERROR]}
    p: Prediction = answer.prediction
    decided = p.decision is not Decision.UNDECIDED
    # Without a positive label the score is that of label. With a reason it is one model's, and must not be taken for the verdict.
    verdict = {} if p.reason else {"label": p.label, "score": p.score}
    return verdict | {
        "decision": p.decision.name,
        "threshold": p.threshold if decided else None,
        "truncated": p.truncated,
        "path": p.path.name,
        "model": p.model,
        "version": p.version or " + ".join(f"{part.model} {part.version}" for part in p.parts) or None,
        "digest": p.digest or None,
        "parts": [dataclasses.asdict(part) for part in p.parts] or None,
        "reason": p.reason[:MAX_ERROR] or None,
    }
