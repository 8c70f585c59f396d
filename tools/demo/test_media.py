"""Tests of the demo's clips and of the models of them: what is measured is honest, and what is served is what was trained."""

import base64
import itertools
import shutil
from pathlib import Path

import bundle
import clips
import corpus
import frames
import media
import numpy as np
import pytest
import servers
from gateway import Gateway

TEXT = servers.ROOT / "examples/models/text/2"


@pytest.fixture(scope="module")
def split() -> tuple[media.Clips, media.Clips]:
    clips.make_all()
    return media.load()


@pytest.fixture(scope="module")
def video(split, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "1"
    media.train_video(folder, *split)
    return folder


@pytest.fixture(scope="module")
def pairs(split) -> tuple[media.Pairs, media.Pairs]:
    training, held_out = corpus.load()
    return media.pair(training, split[0], 500, seed=1), media.pair(held_out, split[1], 500, seed=2)


@pytest.fixture(scope="module")
def fusion(video, pairs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fusion") / "1"
    media.train_fusion(folder, TEXT, video, *pairs)
    return folder


def rows(array: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in array}


def test_no_held_out_clip_is_trained_on(split):
    training, held_out = split
    assert (len(training.labels), len(held_out.labels)) == (clips.TRAINING, clips.HELD_OUT)
    assert len(rows(training.frames)) == clips.TRAINING and len(rows(held_out.frames)) == clips.HELD_OUT
    assert not rows(training.frames) & rows(held_out.frames)


def test_both_splits_have_every_kind_and_as_many_of_each_class():
    for of in (False, True):
        some = [clip for clip in clips.everything() if clip.held_out == of]
        assert {clip.kind for clip in some} == clips.CALM.keys() | clips.FLASHING.keys()
        assert sum(clip.flashing for clip in some) * 2 == len(some)
    assert {clip.container for clip in clips.everything()} == clips.CODECS.keys()


def test_what_flashes_does_so_more_than_three_times_a_second():
    for clip in clips.everything():
        brush = clips.Brush(clip)
        ups = (np.diff(brush.square()[:, 0, 0, 0]) > 0).sum()
        # One more may have begun before the first frame.
        assert (ups + 1) / brush.seconds[-1] > 3
        at = brush.moments(4)
        assert all(b - a >= clip.rate / 2 for a, b in itertools.pairwise(at)), "a calm clip flashes twice in a second at most"


@pytest.mark.parametrize("container", clips.CODECS)
def test_a_clip_made_again_is_the_same(split, container, tmp_path, monkeypatch):
    clip = next(clip for clip in clips.everything() if clip.container == container)
    before = clip.path.read_bytes(), clips.load()[clip.number]
    monkeypatch.setattr(clips, "home", lambda: tmp_path)
    (again,) = clips.make([clip])
    assert clip.path.read_bytes() == before[0] and np.array_equal(again, before[1])


def test_frames_are_chosen_from_the_first_to_the_last_and_repeated_if_there_are_too_few():
    assert list(frames.choose(16)) == list(range(16))
    assert (frames.choose(90)[0], frames.choose(90)[-1]) == (0, 89)
    assert list(frames.choose(3, 5)) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("side", [32, 40, 7])
def test_a_picture_of_one_colour_stays_it_at_any_size(side):
    colours = np.array([0, 77, 255], np.uint8)
    assert (frames.resize(np.broadcast_to(colours, (1, 45, 61, 3)), side) == colours).all()


def test_the_f1_that_is_said_is_that_of_the_files(split, video, monkeypatch):
    monkeypatch.syspath_prepend(servers.ROOT / "clients/python/src")
    from modelgate.publish import golden

    model, held_out = golden.Model(video), split[1]
    said = np.array([model.scores(golden.Input(frames=clip))["flashing"] >= 0.5 for clip in held_out.frames])
    true = held_out.labels == 1
    f1 = 2 * (said & true).sum() / (said.sum() + true.sum())
    assert f1 > 0.7 and bundle.measure(said, true)["eval_f1"] == pytest.approx(f1)
    assert bundle.evaluate(video, held_out.labels, clips=held_out.frames)["eval_f1"] == pytest.approx(f1)


def test_nothing_can_be_learned_from_wrong_labels(split, tmp_path):
    """Were held-out clips among those trained on, or the labels in the clips' files, this would not show."""
    training, held_out = split
    accuracy = []
    for seed in range(5):
        wrong = media.Clips(training.frames, np.random.default_rng(seed).permutation(training.labels))
        accuracy.append(media.train_video(tmp_path / "wrong", wrong, held_out)["eval_accuracy"])
    assert 0.35 < np.mean(accuracy) < 0.65, accuracy


def test_training_again_gives_the_same_bytes(split, video, pairs, fusion, tmp_path):
    media.train_video(tmp_path / "video", *split)
    media.train_fusion(tmp_path / "fusion", TEXT, tmp_path / "video", *pairs)
    for first, again in ((video, tmp_path / "video"), (fusion, tmp_path / "fusion")):
        for path in first.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path


def test_held_out_pairs_are_of_held_out_texts_and_clips(split, pairs):
    training, held_out = corpus.load()
    for made, texts, other in ((pairs[0], training, held_out), (pairs[1], held_out, training)):
        assert set(made.texts) <= set(texts.texts) and not set(made.texts) & set(other.texts)
        negative = np.array([texts.labels[texts.texts.index(text)] for text in made.texts])
        assert list(made.labels) == list(negative | made.clips.labels[made.which])
    assert pairs[1].clips is split[1]


def test_the_fusion_is_better_than_each_part_and_than_both_weighted(video, pairs, fusion):
    without = media.compare(TEXT, video, pairs[1])
    f1 = bundle.evaluate(fusion, pairs[1].labels, pairs[1].texts, pairs[1].clips.frames[pairs[1].which])["eval_f1"]
    assert f1 > max(0.8, *without.values()), (f1, without)


@pytest.fixture
def gateway(video, fusion, tmp_path, monkeypatch):
    """A gateway that serves both."""
    program = servers.ROOT / "bin/modelgate"
    assert program.exists(), f"{program} is missing: run make build"
    monkeypatch.setattr(servers, "HOME", tmp_path)
    monkeypatch.setattr(servers, "_STATE", tmp_path / "servers.json")
    for name, folder in (("video", video), ("fusion", fusion)):
        shutil.copytree(folder, tmp_path / "models" / name / "1")
    grpc, http = (f"127.0.0.1:{servers.free_port(0)}" for _ in range(2))
    options = ["--models", tmp_path / "models", "--data-dir", tmp_path / "data", "--grpc-addr", grpc, "--http-addr", http]
    ours = servers.Servers()
    ours.start("gateway", [str(program), "serve", *map(str, options)], {})
    made = Gateway(program, grpc, f"http://{http}")
    try:
        for model in ("video", "fusion"):
            servers.wait_for(f"version 1 of {model}", lambda m=model: made.serving(m) == "1", 60, lambda: ours.alive("gateway"))
        yield made
    finally:
        ours.stop()


def test_the_gateway_says_of_clips_what_the_trained_models_say(split, video, fusion, pairs, gateway):
    """Twelve clips as they lie on disk, of every container: ffmpeg, the choice of frames and the resize are the gateway's own."""
    every = [clip for clip in clips.everything() if clip.held_out]
    some = [clip for container in clips.CODECS for clip in [c for c in every if c.container == container][:4]]
    own = media.scores(video, split[1])
    text = "worst customer service ever"
    for clip in some:
        at = clip.number - clips.TRAINING
        body = {"video": {"clip": base64.b64encode(clip.path.read_bytes()).decode()}}
        assert gateway.rest("/v1/models/video:predict", body)["score"] == pytest.approx(own[at], abs=1e-5), clip
        (both,) = bundle.probabilities(fusion, [text], split[1].frames[at : at + 1])
        assert gateway.rest("/v1/models/fusion:predict", body | {"text": text})["score"] == pytest.approx(both, abs=1e-5), clip
