"""Scores Spark DataFrames: a function for mapInPandas.

    scored = rows.mapInPandas(scorer("gateway:8001", text="clean_text"), schema=output_schema(rows.schema))

Every row comes out once, with the columns of COLUMNS added. A row that could not be scored has its error in error_code and error and
nothing in the columns of the verdict: never a low score. One bad row never fails the others, nor the job.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelgate import errors
from modelgate.client import Client
from modelgate.results import Prediction, Request, Result

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
    "model": "string",
    "version": "string",
    "error_code": "string",
    "error": "string",
}
MAX_ERROR = 500
# Rows in one stream: enough to make it worth opening, few enough to bound what is repeated after a break.
_CHUNK = 1024


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

    text and video name the columns with the text and with the bytes of the clip; a null in each means that the row has none.
    window bounds the rows without an answer. What fails for now (the server restarts, its queue is full) is sent again, attempts
    times in all, further and further apart; timeout bounds one attempt, in seconds. client holds further arguments of Client.
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
    return [{kind: _none_if_null(column.iloc[i]) for kind, column in present.items()} for i in range(len(frame))]


def _none_if_null(value: Any) -> Any:
    # Pandas has several nulls; each of them differs from itself or is None or NA.
    return value if isinstance(value, (str, bytes, bytearray)) else None


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
        requests = (Request(id=str(i), **inputs[i]) for i in open_rows)
        answered = set()
        try:
            for result in client.predict_stream(requests, model=model, timeout=timeout):
                final[int(result.id)] = result
                answered.add(int(result.id))
            broken = errors.make("INTERNAL", "the server ended the stream without an answer to this row")
        except errors.ModelgateError as err:
            broken = err
        for i in open_rows:
            if i not in answered:
                final[i] = Result(str(i), error=broken)
    return [final[i] for i in range(len(inputs))]


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
    return {
        "label": p.label,
        "score": p.score,
        "decision": p.decision.name,
        "threshold": p.threshold,
        "truncated": p.truncated,
        "model": p.model,
        "version": p.version,
    }
