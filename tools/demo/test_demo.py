"""Tests of the demo's parts that need no server. `make test` runs them before Go's."""

import hashlib
import json
import math
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bundle
import corpus
import demo
import numpy as np
import onnxruntime
import pytest
import servers
import train
from traffic import percentile

EXAMPLES = servers.ROOT / "examples/models/text"


@pytest.fixture(scope="module")
def split() -> tuple[corpus.Split, corpus.Split]:
    return corpus.load()


@pytest.fixture(scope="module")
def small(split, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    train.train(folder, split[0].first(train.ROWS["small"]), split[1])
    return folder


def test_no_held_out_text_is_trained_on(split):
    training, held_out = split
    assert len(held_out.texts) == corpus.HELD_OUT
    assert not set(training.texts) & set(held_out.texts)
    assert len(set(training.texts)) == len(training.texts)


def test_another_seed_splits_otherwise(split):
    assert set(corpus.load(seed=8)[1].texts) != set(split[1].texts)


def test_training_again_gives_the_same_bytes(split, small, tmp_path):
    train.train(tmp_path / "again", split[0].first(train.ROWS["small"]), split[1])
    for path in small.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_manifest_is_of_every_other_file(small):
    listed = json.loads((small / "manifest.json").read_text())["files"]
    assert {f["path"] for f in listed} == {p.name for p in small.iterdir()} - {"manifest.json"}
    for f in listed:
        data = (small / f["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (f["size"], f["sha256"])


def test_padding_changes_no_answer(small):
    session = onnxruntime.InferenceSession(small / "model.onnx")
    ids = np.array([[2, 40, 41, 3]], np.int64)
    (alone,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    padded = np.array([[2, 40, 41, 3, 0, 0], [2, 9, 9, 9, 9, 3]], np.int64)
    (together,) = session.run(None, {"input_ids": padded, "attention_mask": (padded != 0).astype(np.int64)})
    assert np.allclose(alone[0], together[0], atol=1e-6)
    assert together.shape == (2, 2)


def test_a_bundle_of_the_same_recipe_is_kept_and_measured(split, tmp_path):
    rows = split[0].first(300)
    held_out = split[1].first(500)
    first = train.train_once(tmp_path / "b", rows, held_out)
    model = tmp_path / "b" / "model.onnx"
    written = model.stat().st_mtime_ns
    assert train.train_once(tmp_path / "b", rows, held_out) == first
    assert model.stat().st_mtime_ns == written
    train.train_once(tmp_path / "b", split[0].first(301), held_out)
    assert model.stat().st_mtime_ns != written


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_examples_have_the_f1_that_they_say(split, version):
    said = json.loads((EXAMPLES / version / "metrics.json").read_text())["eval_f1"]
    probabilities = bundle.probabilities(EXAMPLES / version, split[1].texts) >= bundle.THRESHOLD
    true = np.array(split[1].labels, bool)
    f1 = 2 * (probabilities & true).sum() / (probabilities.sum() + true.sum())
    assert math.isclose(said, f1, abs_tol=1e-4)


def test_a_taken_port_is_not_given():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert servers.free_port(port) not in (port, 0)
    assert servers.free_port(port) == port


def test_only_what_the_demo_started_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "HOME", tmp_path)
    monkeypatch.setattr(servers, "_STATE", tmp_path / "servers.json")
    ours = servers.Servers()
    ours.start("ours", [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"], {})
    servers.wait_for("the process", lambda: "up" in ours.log("ours"), 20)
    ours.note()
    state = json.loads((tmp_path / "servers.json").read_text())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        state["another"] = {"pid": other.pid, "identity": "the number was somebody else's"}
        (tmp_path / "servers.json").write_text(json.dumps(state))
        assert servers.stop_earlier() == ["ours"]
        # What is ending has no command line any more, but may not be reaped yet.
        servers.wait_for("its end", lambda: not ours.alive("ours"), 20)
        assert other.poll() is None
        other.communicate(os.linesep.encode())


def test_the_request_that_it_suggests_is_one_that_the_gateway_takes(capsys):
    demo.farewell(demo.Screen(), SimpleNamespace(grpc="127.0.0.1:1", http="http://127.0.0.1:2"), "http://127.0.0.1:3")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "curl" in line)
    words = shlex.split(line)
    assert words[words.index("-H") + 1] == "Content-Type: application/json"
    assert json.loads(words[words.index("-d") + 1])["text"]


@pytest.mark.parametrize(
    ("values", "share", "want"),
    [([1.0], 0.99, 1.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([float(n) for n in range(1, 101)], 0.99, 99.0)],
)
def test_percentile(values, share, want):
    assert percentile(values, share) == want
