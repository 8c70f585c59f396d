"""The Spark job against a real gateway, with a swap in the middle."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from gateway import ROOT, Gateway, add_version, gateway
from modalities import FRAMES, TEXT, both_served, mp4
from modelgate import Result, _proto
from modelgate.results import prediction
from modelgate.spark import COLUMNS, MAX_ERROR, _row, output_schema, scorer

sys.path.insert(0, str(ROOT / "clients/python/examples"))


def scored(frame: pd.DataFrame, target: str, **options: object) -> pd.DataFrame:
    return pd.concat(scorer(target, **options)(iter([frame])))


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .appName("modelgate-test")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "100")
        .getOrCreate()
    )
    yield session
    session.stop()


def test_each_row_has_a_verdict_or_an_error(served: Gateway) -> None:
    texts = ["worst customer service ever", None, "", "lovely crew, thank you", "x" * 70_000, float("nan"), "\ud800"]
    out = scored(pd.DataFrame({"clean_text": texts, "n": range(len(texts))}, index=[3] * len(texts)), served.grpc, text="clean_text")
    assert list(out.columns) == ["clean_text", "n", *COLUMNS] and list(out["n"]) == list(range(len(texts)))
    ok = [0, 3]
    for i, row in enumerate(out.to_dict("records")):
        if i in ok:
            assert row["version"] == "1" and row["error"] is None and 0 <= row["score"] <= 1
        else:
            assert row["error_code"] == "INVALID_ARGUMENT" and 0 < len(row["error"]) <= MAX_ERROR
            assert row["score"] is None and row["label"] is None and row["decision"] is None


def test_a_gateway_that_is_gone_gives_errors_and_no_scores() -> None:
    out = scored(pd.DataFrame({"t": ["a", "b"]}), "127.0.0.1:1", text="t", attempts=2, timeout=2.0)
    assert set(out["error_code"]) == {"UNAVAILABLE"} and out["score"].isna().all()


def test_a_row_without_input_is_told_at_once() -> None:
    out = scored(pd.DataFrame({"t": [None]}), "127.0.0.1:1", text="t")
    assert list(out["error_code"]) == ["INVALID_ARGUMENT"]


def test_clips_are_scored_beside_texts(spark: object, tmp_path: Path) -> None:
    """Frames, paths, clips and references; both parts, one, none, and what is no clip."""
    import spark_job

    clip_file = tmp_path / "clip.mp4"
    clip_file.write_bytes(mp4())
    rows = [(TEXT, FRAMES), (TEXT, None), (None, FRAMES), (None, None), (TEXT, [b"no picture"]), ("", FRAMES)]
    with both_served(tmp_path) as (g, c):
        late, alone = c.predict(TEXT, FRAMES, model="fusion"), c.predict(TEXT)
        frame = spark.createDataFrame([(i, *row) for i, row in enumerate(rows)], "n int, words string, clip array<binary>").coalesce(1)
        score = scorer(g.grpc, text="words", video="clip", model="fusion")
        found = frame.mapInPandas(score, schema=output_schema(frame.schema)).collect()
        both, text, clip, none, bad, empty = (row.asDict(recursive=True) for row in sorted(found, key=lambda row: row.n))
        names = pd.DataFrame({"clip": [str(clip_file), mp4(), bytearray(mp4()), str(tmp_path / "none.mp4"), 7, "s3://bucket/1.mp4"]})
        named = scored(names, g.grpc, video="clip", model="video").to_dict("records")
    assert (both["path"], both["model"], both["version"], both["digest"]) == ("LATE_SCORE", "fusion", "text 1 + video 3", None)
    assert both["score"] == pytest.approx(late.score, abs=1e-6) and both["decision"] == late.decision.name and both["reason"] is None
    assert both["parts"] == [pytest.approx(dataclasses.asdict(part)) for part in late.parts]
    # One part decides nothing: there is no score to compare, and what the one model said is kept apart.
    for row, path, version, missing in ((text, "TEXT_ONLY", "1", "clip"), (clip, "VIDEO_ONLY", "3", "text")):
        assert (row["decision"], row["path"], row["version"], row["error_code"]) == ("UNDECIDED", path, version, None)
        assert [row[name] for name in ("label", "score", "threshold")] == [None] * 3 and f"needs a {missing} too" in row["reason"]
    assert text["parts"][0]["score"] == pytest.approx(alone.score) and text["digest"] == alone.digest
    for row in (none, bad):
        assert row["error_code"] == "INVALID_ARGUMENT" and all(row[name] is None for name in COLUMNS if not name.startswith("error"))
    assert empty["path"] == "LATE_SCORE" and empty["error"] is None
    assert [row["version"] for row in named] == ["3"] * 3 + [None] * 3 and named[0]["path"] == "VIDEO" and named[0]["parts"] is None
    assert len({row["score"] for row in named[:3]}) == 1
    assert {row["error_code"] for row in named[3:]} == {"INVALID_ARGUMENT"} and "none.mp4" in named[3]["error"]
    assert "reference" in named[5]["error"]  # this gateway fetches nothing
    job = spark_job.score(spark.createDataFrame([], spark_job.SCHEMA), "gateway:8001", clips=True)
    assert job.columns == [*(field.split()[0] for field in spark_job.SCHEMA.split(", ")), *COLUMNS, "verdict"]


@pytest.mark.parametrize(
    ("answer", "row"),
    [
        # Without a positive label the score is that of the label.
        ({"path": 1}, {"label": "sports", "score": 0.9, "path": "TEXT", "reason": None, "digest": None}),
        ({"path": 5, "reason": "no clip"}, {"label": None, "score": None, "path": "TEXT_ONLY", "reason": "no clip"}),
        ({"path": 99, "digest": "d"}, {"label": "sports", "score": 0.9, "path": "UNKNOWN", "digest": "d"}),
    ],
    ids=["no label is positive", "a part is missing", "a newer server"],
)
def test_columns_of_what_is_undecided(answer: dict, row: dict) -> None:
    undecided = {"label": "sports", "score": 0.9, "decision": 3, "threshold": 0.5, "model": "topics", "version": "1"}
    got = _row(Result("", prediction(_proto.message("modelgate.v1.PredictResponse")(**undecided, **answer))))
    assert {name: got.get(name) for name in row} == row
    assert (got["decision"], got["threshold"], got["version"], got["parts"]) == ("UNDECIDED", None, "1", None)


def write_lines(folder: Path, part: int, rows: int = 250) -> None:
    """A file appears whole, as Spark wants it."""
    lines = [
        {
            "video_id": f"{part}-{i}",
            "minio_video_path": f"tiktok/{part}-{i}.mp4",
            "clean_text": "" if i % 50 == 9 else None if i % 50 == 10 else f"flight {i} was late and nobody said why",
            "csv_label": "harmful",
            "timestamp": "2026-11-24T00:00:00Z",
        }
        for i in range(rows)
    ]
    scratch = folder.parent / f"{part}.json.new"
    scratch.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    scratch.rename(folder / f"{part}.json")


def test_a_stream_with_a_swap_in_the_middle_has_every_row_once(spark: object, tmp_path: Path) -> None:
    import spark_job

    models, incoming, out = tmp_path / "models", tmp_path / "incoming", tmp_path / "scored"
    incoming.mkdir()
    add_version(models, "1")
    with gateway(tmp_path, "--models", str(models), "--set", "update_interval=1s") as g:
        g.wait_for("1")
        rows = spark.readStream.schema(spark_job.SCHEMA).option("maxFilesPerTrigger", 2).json(str(incoming))
        stream = spark_job.score(rows, g.grpc).writeStream.format("parquet")
        query = stream.option("path", str(out)).option("checkpointLocation", str(tmp_path / "state")).start()
        try:
            for part in range(4):
                write_lines(incoming, part)
            query.processAllAvailable()
            add_version(models, "2")
            for part in range(4, 10):
                write_lines(incoming, part)
            g.wait_for("2")
            for part in range(10, 14):
                write_lines(incoming, part)
            query.processAllAvailable()
        finally:
            query.stop()
    found = spark.read.parquet(str(out)).toPandas()
    counts = Counter(found["video_id"])
    assert set(counts) == {f"{p}-{i}" for p in range(14) for i in range(250)} and set(counts.values()) == {1}
    bad = found["video_id"].str.split("-").str[1].astype(int).mod(50).isin([9, 10])
    assert (
        (found[bad]["error_code"] == "INVALID_ARGUMENT").all() and found[bad]["score"].isna().all() and found[bad]["verdict"].isna().all()
    )
    good = found[~bad]
    assert good["error"].isna().all() and good["score"].between(0, 1).all() and set(good["verdict"]) <= {"harmful", "safe"}
    assert set(good["version"]) == {"1", "2"} and set(good["model"]) == {"text"}


def test_the_job_runs_as_a_program(served: Gateway, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    write_lines(incoming, 0)
    command = [sys.executable, ROOT / "clients/python/examples/spark_job.py", "--once", "--gateway", served.grpc]
    folders = ["--input", incoming, "--output", tmp_path / "scored", "--checkpoint", tmp_path / "state"]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert sum(len(pd.read_parquet(p)) for p in (tmp_path / "scored").glob("*.parquet")) == 250
