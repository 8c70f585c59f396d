"""The late score, and the fusion that takes its place, through a real gateway."""

import threading
from pathlib import Path

import pytest

import modelgate
from modalities import FRAMES, TEXT, add_clips, both_served
from modelgate import Decision, Prediction
from modelgate import Path as By


def test_a_fusion_takes_the_place_of_the_late_score(tmp_path: Path) -> None:
    with both_served(tmp_path, "fusion.text_weight=0.4", "fusion.video_weight=0.6") as (g, c):
        text, video = c.predict(TEXT), c.predict(video=FRAMES, model="video")
        late = c.predict(TEXT, FRAMES, model="fusion", id="a")
        assert (late.path, late.model, late.version, late.digest, late.id) == (By.LATE_SCORE, "fusion", "", "", "a")
        assert [(q.model, q.version, q.digest, q.weight) for q in late.parts] == [
            ("text", "1", text.digest, 0.4),
            ("video", "3", video.digest, 0.6),
        ]
        assert [q.score for q in late.parts] == pytest.approx([text.score, video.score], abs=1e-5)
        assert late.score == pytest.approx(0.4 * text.score + 0.6 * video.score, abs=1e-5)
        assert late.decision is (Decision.AT_OR_ABOVE_THRESHOLD if late.score >= late.threshold else Decision.BELOW_THRESHOLD)
        assert late.positive_label == "negative or harmful" and late.reason == ""

        answers: list[Prediction] = []
        failed: list[Exception] = []

        def ask() -> None:
            try:
                while not answers or answers[-1].path is not By.FUSION:
                    answers.append(c.predict(TEXT, FRAMES, model="fusion"))
            except modelgate.ModelgateError as err:
                failed.append(err)

        asking = threading.Thread(target=ask)
        asking.start()
        add_clips(tmp_path / "models", "fusion", "1", with_text=True)
        served = g.wait_for("1", "fusion")
        asking.join(60)
    assert not asking.is_alive() and not failed and {p.path for p in answers[:-1]} == {By.LATE_SCORE}
    last = answers[-1]
    assert (last.model, last.version, last.digest, last.parts) == ("fusion", "1", served["digest"], ())


def test_one_part_alone_decides_nothing(tmp_path: Path) -> None:
    with both_served(tmp_path) as (_, c):
        alone = c.predict(TEXT)
        for result in (c.predict(TEXT, model="fusion"), c.predict_batch([TEXT], model="fusion")[0].get()):
            assert (result.decision, result.path, result.version) == (Decision.UNDECIDED, By.TEXT_ONLY, "1")
            assert "needs a clip too" in result.reason and (result.label, result.score) == (alone.label, alone.score)
            assert [(q.model, q.version, q.weight) for q in result.parts] == [("text", "1", 1.0)]
        clip = c.predict(video=FRAMES, model="fusion")
        assert (clip.decision, clip.path, clip.version) == (Decision.UNDECIDED, By.VIDEO_ONLY, "3") and "needs a text too" in clip.reason
        # What is wrong is an error, whatever could stand in for it.
        with pytest.raises(modelgate.InvalidInput):
            c.predict(TEXT, b"not a clip", model="fusion")
        with pytest.raises(modelgate.InvalidInput):
            c.predict(model="fusion")


def test_one_part_decides_where_it_is_told_to(tmp_path: Path) -> None:
    with both_served(tmp_path, "fusion.on_missing=single") as (_, c):
        p = c.predict(TEXT, model="fusion")
        assert (p.decision, p.path, p.reason) == (Decision.AT_OR_ABOVE_THRESHOLD, By.TEXT_ONLY, "")


def test_without_a_fallback_there_is_no_answer(tmp_path: Path) -> None:
    with both_served(tmp_path, "fusion.fallback=none") as (_, c), pytest.raises(modelgate.Unavailable):
        c.predict(TEXT, FRAMES, model="fusion")
