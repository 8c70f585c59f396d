"""Clips, and texts with clips: the same job as with texts, by the models of media.py."""

import base64
import shutil
import sys

import clips
import corpus
import media
import numpy as np
import servers
from screen import expect
from stage import BUNDLES, Stage
from text_steps import TEXTS
from traffic import CALLERS, ClipTraffic

MAKING = "clips"
# Of the clips that are shown, for whoever wants to see them.
COPIES = servers.HOME / "clips"
# One of each is shown.
SHOWN = ("pan", "cuts", "strobe", "colours", "burst")
# A text and a kind of clip: harm in the text alone, in the clip alone, in none.
BESIDE = ((TEXTS[0], "pan"), (TEXTS[1], "strobe"), (TEXTS[1], "pan"))
# A version's own answers and the gateway's differ by no more.
CLOSE = 1e-5


def held_out(kind: str) -> clips.Clip:
    return next(clip for clip in clips.everything() if clip.held_out and clip.kind == kind)


def start_clips(stage: Stage) -> None:
    """Lets another process make the clips, if they aren't there from an earlier run."""
    if not clips.ready():
        stage.servers.start(MAKING, [sys.executable, clips.__file__], {})


def wait_for_clips(stage: Stage) -> None:
    def ready() -> bool:
        stage.screen.progress(f"{clips.made()} of {len(clips.everything())} clips")
        return clips.ready()

    servers.wait_for("the clips", ready, 600, lambda: clips.ready() or stage.servers.alive(MAKING))
    stage.screen.line(f"{len(clips.everything())} clips for later, drawn at random and encoded by ffmpeg")


class MediaSteps:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.training, self.held_out = media.load()

    def run(self) -> None:
        self.video()
        self.swap_video()
        self.fusion()

    def video(self) -> None:
        screen = self.stage.screen
        screen.step(8, "Video: clips that flash more than three times a second, against calm ones")
        f1 = {}
        for name, n in media.CLIPS.items():
            part = media.Clips(self.training.frames[:n], self.training.labels[:n])
            f1[name] = media.train_video(BUNDLES / f"clips-{name}", part, self.held_out)["eval_f1"]
            screen.line(f"{n:6d} clips: F1 {f1[name]:.4f} on {len(self.held_out.labels)} held-out clips")
        expect("the F1 of the first video version to exceed 0.70, and more clips to make it grow", 0.7 < f1["few"] < f1["all"])
        self.stage.publish("video", "clips-few", {"clips": media.CLIPS["few"]})
        self.stage.first("video")
        COPIES.mkdir()
        for kind in SHOWN:
            shutil.copy(held_out(kind).path, COPIES)
            said = self.stage.gateway.command("predict", "--video", str(held_out(kind).path))
            screen.line(said)
            expect("an answer from version 1", "video v1" in said)

    def swap_video(self) -> None:
        screen = self.stage.screen
        screen.step(9, f"A better version of the video model, while {CALLERS} callers send clips without a pause")
        paths = [clip.path for clip in clips.everything() if clip.held_out]
        traffic = ClipTraffic(self.stage.gateway.grpc, paths)
        self.stage.swap("video", "clips-all", {"clips": media.CLIPS["all"]}, traffic, seconds=2)
        # That the scores are the trained models' own, with other code between the clip and the graph.
        own = {str(i): media.scores(BUNDLES / f"clips-{name}", self.held_out) for i, name in enumerate(media.CLIPS, 1)}
        worst = max(abs(a["score"] - own[a["version"]][a["clip"]]) for a in traffic.answers)
        screen.line(f"largest difference to what the trained models say of the same clips: {worst:.0e}")
        expect(f"the gateway's scores to be the models' own to {CLOSE}, not {worst}", worst <= CLOSE)

    def fusion(self) -> None:
        screen = self.stage.screen
        screen.step(10, "Fusion: a tweet with a clip is harmful if the tweet is negative, or the clip flashes")
        screen.line("no version yet: 0.3 of the text model's score and 0.7 of the video model's")
        for text, kind in BESIDE:
            self.show(self.ask(text, kind, "PATH_LATE_SCORE"), text, kind)
        self.train_fusion()
        self.stage.publish("fusion", "fusion", {"pairs": media.PAIRS})
        self.stage.first("fusion")
        for text, kind in BESIDE:
            self.show(self.ask(text, kind, "PATH_FUSION"), text, kind)

    def train_fusion(self) -> None:
        """Trains it, and says what it is better than."""
        text, video, screen = BUNDLES / "all", BUNDLES / "clips-all", self.stage.screen
        training, unseen = corpus.load()
        pairs = media.pair(training, self.training, media.PAIRS, seed=1)
        others = media.pair(unseen, self.held_out, media.HELD_OUT_PAIRS, seed=2)
        f1 = media.compare(text, video, others)
        f1["trained on pairs"] = media.train_fusion(BUNDLES / "fusion", text, video, pairs, others)["eval_f1"]
        screen.line(f"F1 on {len(others.texts)} pairs of held-out tweets and clips:")
        for name, value in f1.items():
            screen.line(f"  {name:20s} {value:.4f}")
        expect("the fusion to exceed 0.80, and each way without it", f1["trained on pairs"] > max(0.8, *list(f1.values())[:-1]))

    def ask(self, text: str, kind: str, path: str) -> dict:
        clip = base64.b64encode(held_out(kind).path.read_bytes()).decode()
        answer = self.stage.gateway.rest("/v1/models/fusion:predict", {"text": text, "video": {"clip": clip}})
        expect(f"path {path}, not {answer['path']}", answer["path"] == path)
        return answer

    def show(self, answer: dict, text: str, kind: str) -> None:
        at = answer["decision"] == "DECISION_AT_OR_ABOVE_THRESHOLD"
        of = " + ".join(f"{p['weight']:g} x {p['score']:.3f} {p['model']} v{p['version']}" for p in answer["parts"])
        expect("the sum of its parts", not of or np.isclose(answer["score"], sum(p["weight"] * p["score"] for p in answer["parts"])))
        of = of or f"fusion v{answer['version']}"
        verdict = f"{answer['positive_label']} {'>=' if at else '< '} {answer['threshold']:g}"
        path = answer["path"].removeprefix("PATH_")
        self.stage.screen.line(f'{path:10s}  {answer["score"]:.3f}  {verdict}  {of}  "{text[:19]}…" {held_out(kind).path.name}')
