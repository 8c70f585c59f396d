"""Clips that are too large for a message."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import modelgate
from cutting import cutting
from gateway import Gateway
from modalities import TEXT, both_served, mp4, padded, padding
from modelgate import Client, Request
from modelgate import Path as By
from modelgate.spark import scorer

LARGE = 5 << 20  # more than a message holds


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with both_served(tmp_path_factory.mktemp("clips")) as (g, _):
        yield g


@pytest.fixture
def asking(clips: Gateway) -> Iterator[Client]:
    with Client(clips.grpc) as c:
        yield c


@pytest.fixture(scope="module")
def score(clips: Gateway) -> float:
    """What a clip gets whose message is small. Padding adds nothing to see."""
    with Client(clips.grpc) as c:
        return c.predict(video=mp4(), model="video").score


def file_of(folder: Path, size: int) -> Path:
    """A clip of so many bytes, few of them on the disk."""
    path = folder / f"{size}.mp4"
    path.write_bytes(mp4() + padding(mp4(), size))
    os.truncate(path, size)
    return path


def test_a_large_clip_is_scored_as_a_small_one(asking: Client, score: float, tmp_path: Path) -> None:
    for video in (bytearray(padded(mp4(), LARGE)), str(file_of(tmp_path, LARGE))):
        p = asking.predict(video=video, model="video", id="a", top_k=1)
        assert (p.score, p.path, p.version, p.id, len(p.classes)) == (score, By.VIDEO, "3", "a", 1)
    p = asking.predict(TEXT, file_of(tmp_path, LARGE), model="fusion")
    assert p.path is By.LATE_SCORE and p.parts[1].score == score


@pytest.mark.parametrize("size", [(4 << 20) - 140, (4 << 20) - 120, (4 << 20) - 40])
def test_no_size_falls_between_message_and_upload(asking: Client, score: float, size: int) -> None:
    clip, caller = padded(mp4(), size), "i" * 60
    assert asking.predict(video=clip, model="video", id=caller).score == score
    # What is no upload fits into a batch and a stream.
    request = Request(video=clip, id=caller)
    refused = asking.uploads(request, model="video")
    for result in (*asking.predict_batch([request], model="video"), *asking.predict_stream([request], model="video")):
        assert isinstance(result.error, modelgate.InvalidInput) if refused else result.get().score == score


def test_a_clip_in_a_file_is_never_whole_in_memory(asking: Client, score: float, tmp_path: Path) -> None:
    path, size = file_of(tmp_path, 48 << 20), 48 << 20
    asking.predict(video=path, model="video", timeout=60)
    tracemalloc.start()
    try:
        assert asking.predict(video=path, model="video", timeout=60).score == score
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 10, peak


def test_a_clip_above_the_servers_limit_is_refused(asking: Client, tmp_path: Path) -> None:
    with pytest.raises(modelgate.InvalidInput, match="67108864"):
        asking.predict(video=file_of(tmp_path, 80 << 20), model="video", timeout=60)
    with pytest.raises(modelgate.ModelNotFound, match="nosuch"):
        asking.predict(video=file_of(tmp_path, LARGE), model="nosuch")
    with pytest.raises(modelgate.InvalidInput):
        asking.predict(video=b"no clip" * (1 << 20), model="video")


def test_batches_and_streams_say_where_a_large_clip_goes(asking: Client, score: float, tmp_path: Path) -> None:
    inputs = [
        Request(video=mp4(), id="small"),
        Request(video=file_of(tmp_path, LARGE), id="large"),
        Request(video=[bytes(LARGE)], id="frames"),
    ]
    for results in (asking.predict_batch(inputs, model="video"), asking.predict_stream(inputs, model="video")):
        got = {r.id: r for r in results}
        assert got["small"].get().score == score
        for name, says in (("large", "Client.predict uploads it"), ("frames", "fewer or smaller frames")):
            assert isinstance(got[name].error, modelgate.InvalidInput) and says in str(got[name].error)


def test_what_is_no_file_is_refused(asking: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for video, says in ((tmp_path, "not a regular file"), (tmp_path / "pipe", "not a regular file"), ("nosuch.mp4", "nosuch.mp4")):
        with pytest.raises(modelgate.InvalidInput, match=says):
            asking.predict(video=video, model="video")


def test_a_reference_is_the_servers_to_fetch(asking: Client) -> None:
    with pytest.raises(modelgate.InvalidInput, match="reference"):
        asking.predict(video="s3://bucket/clip.mp4", model="video")


def test_an_upload_that_breaks_starts_anew(clips: Gateway, score: float, tmp_path: Path) -> None:
    for video in (file_of(tmp_path, LARGE), padded(mp4(), LARGE)):
        with cutting(clips.grpc, cuts=2, after=1 << 20) as proxy, Client(proxy.address) as c:
            assert c.predict(video=video, model="video").score == score
            assert proxy.cut == 2


def test_an_upload_that_always_breaks_is_an_error(clips: Gateway, tmp_path: Path) -> None:
    with cutting(clips.grpc, cuts=100, after=1 << 20) as proxy:
        with Client(proxy.address, max_attempts=3) as c, pytest.raises(modelgate.Unavailable):
            c.predict(video=file_of(tmp_path, LARGE), model="video")
        assert proxy.cut == 3
        # No attempt begins that could not end in time.
        start = time.monotonic()
        with Client(proxy.address, max_attempts=5) as c, pytest.raises((modelgate.Unavailable, modelgate.DeadlineExceeded)):
            c.predict(video=file_of(tmp_path, LARGE), model="video", timeout=0.5)
        assert time.monotonic() - start < 2


def test_a_file_that_gets_shorter_meanwhile_has_no_score(clips: Gateway, tmp_path: Path) -> None:
    path = file_of(tmp_path, 32 << 20)
    with (
        cutting(clips.grpc, cuts=1, after=1 << 20, before_cut=lambda: os.truncate(path, LARGE)) as proxy,
        Client(proxy.address) as c,
        pytest.raises(modelgate.InvalidInput, match="became shorter"),
    ):
        c.predict(video=path, model="video")


def test_an_error_keeps_no_file_open(clips: Gateway, asking: Client, tmp_path: Path) -> None:
    path = file_of(tmp_path, 32 << 20)
    with pytest.raises(modelgate.ModelNotFound) as kept:
        asking.predict(video=path, model="nosuch")
    clips.wait("the file is closed", lambda: path not in {fd.resolve() for fd in Path("/proc/self/fd").iterdir()}, 5)
    assert "nosuch" in kept.value.message


def test_rows_with_large_clips_are_scored(clips: Gateway, score: float, tmp_path: Path) -> None:
    large = file_of(tmp_path, LARGE)
    frame = pd.DataFrame({"clip": [str(large), mp4(), padded(mp4(), LARGE), b"no clip" * (1 << 20), None, str(large)]})
    out = pd.concat(scorer(clips.grpc, video="clip", model="video")(iter([frame])))
    assert list(out["score"].dropna()) == [score] * 4 and list(out.index[out["score"].isna()]) == [3, 4]
    assert set(out["error_code"].dropna()) == {"INVALID_ARGUMENT"}
