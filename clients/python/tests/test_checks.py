"""What the gateway makes of versions that aren't what was published: a real registry, a real gateway, files that were tampered with."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from clips import clip_bundle
from gateway import BUNDLES, PROGRAM, ROOT, Gateway, gateway
from modelgate import Client, publish
from modelgate.publish import bundle
from modelgate.publish.registry import Registry
from modelgate.publish.versions import CONTRACT_TAG, DIGEST_TAG
from registry import mlflow_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), "venv", "python") as address:
        yield address


class Published:
    """A model in the registry, of which further versions can be made that are wrong somewhere."""

    def __init__(self, server: str, name: str, source: Path, scratch: Path) -> None:
        self.registry, self.name, self.scratch, self.f1 = Registry(server), name, scratch, 0.81
        done = publish.log_model(source, {"eval_f1": self.f1}, model_name=name, promote=True, f1_threshold=0.75, tracking_uri=server)
        self.tags = dict(self.registry.version(name, done.version).tags)
        self.good = publish.download_model(name, target=scratch / "good", tracking_uri=server)

    def again(self, change: Callable[[Path], None], seal: bool = True, tags: Mapping[str, str | None] | None = None) -> str:
        """Promotes the files once more, changed, as a better version, and returns its number. tags replace those of the first."""
        self.f1 += 0.01
        folder = self.scratch / f"changed-{self.f1:.2f}"
        shutil.copytree(self.good, folder)
        change(folder)
        own = dict(self.tags)
        if seal:
            own[DIGEST_TAG] = bundle.seal(folder)
        for key, value in (tags or {}).items():
            own.pop(key)
            if value is not None:
                own[key] = value
        run = self.registry.log("checks", folder, {"eval_f1": self.f1}, {}, None)
        version = self.registry.register(self.name, run, own)
        self.registry.promote(self.name, version)
        return version


def refused(g: Gateway, version: str, model: str = "text") -> str:
    """Waits until a version is refused for good, and returns why."""

    def found() -> str:
        for entry in g.get(f"/v1/models/{model}/history")["entries"]:
            if entry["candidate"]["version"] == version and entry["outcome"] != "refused":
                assert (entry["outcome"], entry["code"]) == ("failed", "quarantined"), entry
                return entry["reason"]
        return ""

    return g.wait(f"{model} {version} refused", found)


def validate(folder: Path) -> dict:
    """What the program says of a bundle."""
    run = subprocess.run([PROGRAM, "validate", folder, "--output", "json"], capture_output=True, text=True, check=False)
    return json.loads(run.stdout)


def nothing(_: Path) -> None:
    pass


def edit_json(name: str, edit: Callable[[dict], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        value = bundle.read_json(folder / name)
        edit(value)
        bundle.write_json(folder / name, value)

    return change


def golden_off_by(amount: float, line: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / "golden.jsonl").read_text().splitlines()
        example = json.loads(lines[line - 1])
        label = next(iter(example["scores"]))
        example["scores"][label] += amount if example["scores"][label] < 0.5 else -amount
        lines[line - 1] = json.dumps(example, ensure_ascii=False)
        (folder / "golden.jsonl").write_text("\n".join(lines) + "\n")

    return change


def other_graph(folder: Path) -> None:
    shutil.copy(BUNDLES / "2/model.onnx", folder / "model.onnx")


def longer_texts(folder: Path) -> None:
    bundle.write_settings(folder, max_length=64)


def other_frames(folder: Path) -> None:
    bundle.write_settings(folder, video_sampling="hf")


def other_frames_unpromised(folder: Path) -> None:
    other_frames(folder)
    edit_json("contract.json", lambda c: c.pop("video_sampling"))(folder)


def turned_clips(folder: Path) -> None:
    bundle.write_settings(folder, video_rotation="apply")


def test_what_was_tampered_with_is_refused(server: str, tmp_path: Path) -> None:
    made = Published(server, "tampered", BUNDLES / "1", tmp_path)
    contract = json.loads(made.tags[CONTRACT_TAG])
    swapped_labels = edit_json("config.json", lambda c: c.update(id2label={"0": "negative", "1": "not_negative"}))
    settings = ["--set", "models.text.registered_name=tampered", "--set", "update_interval=1s"]
    with gateway(tmp_path, "--mlflow-tracking-uri", server, *settings) as g, Client(g.grpc) as c:
        assert g.wait_for("1")["digest"] == made.tags[DIGEST_TAG]
        before = c.predict("late again")
        otherwise = json.dumps({**contract, "labels": ["harmful", "safe"]})
        for change, options, says in [
            (golden_off_by(0.05, 3), {}, ["1 of 6 golden answers", 'line 3, the text "ok"', "difference of 0.05 ", "tolerance 0.0001"]),
            (other_graph, {}, ["golden.jsonl: 6 of 6 golden answers don't come out on this machine"]),
            (swapped_labels, {}, ["contract.json doesn't hold: labels", '["negative" "not_negative"]']),
            (longer_texts, {}, ["contract.json doesn't hold: max_length: it says 128, the model has 64"]),
            (golden_off_by(0.05, 3), {"seal": False}, ["golden.jsonl has ", "manifest.json says"]),
            (golden_off_by(-1e-6, 3), {"tags": {DIGEST_TAG: made.tags[DIGEST_TAG]}}, [made.tags[DIGEST_TAG], "that were published"]),
            (nothing, {"tags": {CONTRACT_TAG: otherwise}}, ["the registry's contract doesn't hold: labels"]),
            (nothing, {"tags": {CONTRACT_TAG: "x" * 5000}}, ["the registry's contract doesn't hold: it is not JSON"]),
        ]:
            version = made.again(change, **options)
            reason = refused(g, version)
            assert all(s in reason for s in says), (version, reason)
            after = c.predict("late again")
            assert (after.version, after.score) == ("1", before.score)
        # What is missing isn't wrong.
        version = made.again(nothing, tags={DIGEST_TAG: None, CONTRACT_TAG: None})
        assert g.wait_for(version)["digest"] == made.tags[DIGEST_TAG]
        swap = g.get("/v1/models/text/history")["entries"][0]
        assert swap["outcome"] == "swapped" and swap["seconds"]["check"] > 0


@pytest.mark.parametrize("kind", ["video", "fusion"])
def test_clips_that_come_out_otherwise_are_refused(kind: str, server: str, tmp_path: Path) -> None:
    made = Published(server, f"checked_{kind}", clip_bundle(tmp_path / kind, ["b", 4, 3, 16, 16], with_text=kind == "fusion"), tmp_path)
    settings = ["--set", f"models.{kind}.registered_name=checked_{kind}", "--set", "update_interval=1s"]
    with gateway(tmp_path, "--mlflow-tracking-uri", server, *settings) as g:
        g.wait_for("1", kind)
        for change, says in [
            (golden_off_by(0.05, 2), ["golden.jsonl: 1 of 3 golden answers", "line 2", "a clip of 4 images"]),
            (
                edit_json("preprocessor_config.json", lambda p: p.update(image_mean=[0.4, 0.5, 0.6])),
                ["golden.jsonl: 3 of 3 golden answers"],
            ),
            (other_frames, ['contract.json doesn\'t hold: video_sampling: it says "linspace", the model has "hf"']),
            (turned_clips, ['contract.json doesn\'t hold: video_rotation: it says "ignore", the model has "apply"']),
            (
                edit_json("preprocessor_config.json", lambda p: p.update(resample=3)),
                ["contract.json doesn't hold: resample: it says 2, the model has 3"],
            ),
            (
                edit_json("contract.json", lambda c: c.update(frames=16)),
                ["contract.json doesn't hold: frames: it says 16, the model has 4"],
            ),
        ]:
            reason = refused(g, made.again(change), kind)
            assert all(s in reason for s in says), reason
        # Without a promise the scores tell.
        version = made.again(other_frames_unpromised, tags={CONTRACT_TAG: None})
        reason = refused(g, version, kind)
        assert "golden.jsonl: 1 of 3 golden answers" in reason and "line 3" in reason and "a clip of 7 images" in reason, reason
        assert g.serving(kind)["version"] == "1"
        g.wait_for(made.again(nothing), kind)


def test_provenance_asks_for_a_manifest_and_a_digest(server: str, tmp_path: Path) -> None:
    made = Published(server, "proven", BUNDLES / "1", tmp_path)
    settings = ["models.text.registered_name=proven", "update_interval=1s", "models.text.provenance=manifest"]
    arguments = [part for s in settings for part in ("--set", s)]
    with gateway(tmp_path, "--mlflow-tracking-uri", server, *arguments) as g:
        g.wait_for("1")
        reason = refused(g, made.again(nothing, tags={DIGEST_TAG: None}))
        assert "the registry doesn't say its digest (the tag modelgate.digest)" in reason and "python -m modelgate.publish" in reason
        without = made.again(lambda folder: (folder / "manifest.json").unlink(), seal=False, tags={DIGEST_TAG: None})
        assert "its bundle has no manifest.json" in refused(g, without)
        assert g.serving()["version"] == "1"
        g.wait_for(made.again(nothing))


@pytest.mark.parametrize("name", ["xlm-roberta", "bert", "videomae", "fusion"])
def test_int8_weights_of_real_exports_hold(name: str, server: str, tmp_path: Path) -> None:
    """PyTorch's exporter notes shapes that quantizing stumbles over; bert's weights lie beside its graph."""
    source, model = ROOT / "inference/testdata/pytorch" / name, f"int8_{name}"
    done = publish.log_model(source, {"eval_f1": 0.9}, model_name=model, quantize=True, tracking_uri=server)
    params = Registry(server)._client.get_run(done.run_id).data.params
    assert 0 < float(params["int8_difference"]) < 0.1
    got = publish.download_model(model, 1, target=tmp_path / "got", tracking_uri=server)
    assert {p.name for p in got.iterdir() if "onnx" in p.name} == {"model.onnx"}
    before = sum(p.stat().st_size for p in source.glob("model.onnx*"))
    assert (got / "model.onnx").stat().st_size < 0.75 * before
    report = validate(got)
    assert report["ok"], report
    assert report["checked"]["Contract"] and report["checked"]["Examples"] == int(params["golden_examples"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tolerance": 0.5}, "tolerance is 0.5"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"examples": ["ok", " "]}, "text is empty"),
        ({"examples": ["x" * 65537]}, "65537 bytes"),
        ({"examples": ["x"] * 1001}, "1001 examples"),
    ],
)
def test_what_the_gateway_would_refuse_is_not_published(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        publish.log_text_model(BUNDLES / "1", {"f1": 0.9}, tracking_uri="http://127.0.0.1:1", **options)
