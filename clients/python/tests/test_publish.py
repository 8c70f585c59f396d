"""Publishing to real MLflow servers, and what a real gateway makes of it."""

import base64
import collections
import concurrent.futures
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from mlflow.exceptions import MlflowException

from clips import clip_bundle
from gateway import BUNDLES, PROGRAM, ROOT, gateway
from modelgate import Client, publish
from modelgate.publish import bundle, export, golden
from modelgate.publish.registry import Registry
from registry import mlflow_server, resetting, without_aliases

# Real architectures, exported, and what PyTorch says of texts and clips: see tools/parity/pytorch.py.
BUNDLES_OF_PYTORCH = ROOT / "inference/testdata/pytorch"
EXPECTED = json.loads((BUNDLES_OF_PYTORCH / "expected.json").read_text(encoding="utf-8"))["bundles"]
CLIPS = ROOT / "inference/video/testdata/parity"
# The first version of each model, and a better one.
OF_PYTORCH = {"text": ("xlm-roberta", "bert"), "video": ("videomae", "timesformer"), "fusion": ("fusion", "fusion-plain-names")}


@functools.cache
def examples_of_pytorch(kind: str) -> list[tuple[str | None, bytes | None, dict[str, dict[str, float]]]]:
    """Text, clip, and the scores of both versions, of every third one that both were asked: the tests of the gateway take all."""
    first, second = ({(e.get("text"), e.get("clip")): e["scores"] for e in EXPECTED[name]} for name in OF_PYTORCH[kind])
    both = [key for key in first if key in second][::3]
    return [(text, (CLIPS / clip).read_bytes() if clip else None, {"1": first[text, clip], "2": second[text, clip]}) for text, clip in both]


@pytest.fixture(scope="session", params=[("venv", "python"), ("mlflow2-venv", "mlflow2")], ids=["mlflow3", "mlflow2"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), *request.param) as address:
        yield address


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TEXT_F1_THRESHOLD"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_published_is_what_is_served(server: str, tmp_path: Path) -> None:
    options = {"tracking_uri": server, "model_name": "served_text", "promote": True}
    first = publish.log_text_model(
        model_path=BUNDLES / "1", metrics={"eval_f1": 0.76, "weighted_f1": 0.99}, params={"rows": 8000}, **options
    )
    assert (first.version, first.promoted, first.f1) == ("1", "alias:production", 0.76)
    settings = ["--set", "models.text.registered_name=served_text", "--set", "update_interval=1s"]
    with gateway(tmp_path, "--mlflow-tracking-uri", server, *settings) as g, Client(g.grpc) as c:
        served = g.wait_for("1")
        assert (served["digest"], served["f1"], served["metric"]) == (first.digest, 0.76, "eval_f1")
        second = publish.log_text_model(BUNDLES / "2", {"eval_f1": 0.80}, **options)
        assert g.wait_for("2")["digest"] == second.digest
        got = publish.download_model("served_text", target=tmp_path / "got", tracking_uri=server)
        examples = [json.loads(line) for line in (got / "golden.jsonl").read_text().splitlines()]
        assert len(examples) == len(golden.TEXTS)
        for example in examples:
            # The request is the very body of the REST call.
            answer = g.get("/v1/models/text:predict", example["request"])
            for one in answer["classes"]:
                assert abs(one["score"] - example["scores"][one["label"]]) <= example["tolerance"], example["request"]
            assert c.predict(example["request"]["text"]).version == "2"


def test_tags_tell_digest_and_contract(server: str, tmp_path: Path) -> None:
    done = publish.log_model(BUNDLES / "1", {"f1": 0.5}, model_name="tagged", tags={"by": "test"}, max_length=64, threshold=0.6,
                             tracking_uri=server)  # fmt: skip
    assert done.promoted == ""
    v = publish.get_latest_model_version("tagged", promoted=False, tracking_uri=server)
    assert (v.digest, v.tags["by"], v.f1) == (done.digest, "test", 0.5)
    contract = json.loads(v.tags["modelgate.contract"])
    assert (contract["kind"], contract["labels"], contract["max_length"]) == ("text", ["not_negative", "negative"], 64)
    assert (contract["positive_label"], contract["threshold"]) == ("negative", 0.6)
    got = publish.download_model("tagged", 1, target=tmp_path / "got", tracking_uri=server)
    assert bundle.verify(got) == done.digest
    with pytest.raises(FileExistsError):
        publish.download_model("tagged", 1, target=tmp_path / "got", tracking_uri=server)


def test_versions_are_numbers_and_only_what_is_promoted_counts(server: str) -> None:
    for i in range(11):
        publish.log_model(
            BUNDLES / "1", {"eval_f1": 0.90 + i / 100}, model_name="many", examples=["x"], tracking_uri=server, promote=i == 8
        )
    assert publish.get_latest_model_version("many", promoted=False, tracking_uri=server).version == "11"
    chosen = publish.get_latest_model_version("many", tracking_uri=server)
    assert (chosen.version, chosen.pointer, chosen.f1) == ("9", "alias:production", 0.98)


def test_compare_and_update(server: str) -> None:
    options = {"model_name": "compared", "examples": ["x"], "tracking_uri": server}

    def compare(f1: float) -> publish.Comparison:
        publish.log_model(BUNDLES / "1", {"eval_f1": f1}, **options)
        return publish.compare_and_update_model("compared", f1_threshold=0.75, tracking_uri=server)

    assert "does not exceed the threshold 0.75" in compare(0.75).reason
    assert compare(0.80).promoted == "alias:production"
    worse = compare(0.79)
    assert not worse.promoted and worse.reason == "version 3: F1 0.7900 does not exceed 0.8000 of version 2"
    assert compare(0.81).promoted and publish.get_latest_model_version("compared", tracking_uri=server).version == "4"
    again = publish.compare_and_update_model("compared", f1_threshold=0.75, tracking_uri=server)
    assert again.reason == "version 4: it is promoted already"


def test_a_stage_is_a_pointer_too(server: str) -> None:
    done = publish.log_text_model(BUNDLES / "1", {"eval_f1": 0.9}, model_name="staged", examples=["x"], promote=True, pointer="stage",
                                  tracking_uri=server)  # fmt: skip
    assert done.promoted == "stage:Production"
    found = publish.get_latest_model_version("staged", tracking_uri=server)
    assert (found.version, found.pointer) == ("1", "stage:Production")


def test_on_an_old_server_it_is_the_stage(server: str) -> None:
    """What promotes by itself the alias, and the stage where there are none; what is promoted is found either way."""
    options = {"model_name": "old_server", "examples": ["x"]}
    with without_aliases(server) as (old, missing):
        done = publish.log_text_model(BUNDLES / "1", {"eval_f1": 0.9}, promote=True, tracking_uri=old, **options)
        assert (done.promoted, missing) == ("stage:Production", ["POST"])
        found = publish.get_latest_model_version("old_server", tracking_uri=old)
        assert (found.version, found.pointer, missing) == ("1", "stage:Production", ["POST", "GET"])
        publish.log_text_model(BUNDLES / "2", {"eval_f1": 0.95}, tracking_uri=old, **options)
        better = publish.compare_and_update_model("old_server", f1_threshold=0.75, tracking_uri=old)
        assert (better.promoted, better.current.version) == ("stage:Production", "1")
        # Who asks for an alias hears that there is none.
        with pytest.raises(MlflowException, match="404"):
            Registry(old).promote("old_server", "2", "alias")
    assert Registry(server).promoted("old_server").pointer == "stage:Production"


def test_lost_answers_make_nothing_twice(server: str) -> None:
    with resetting(server) as (proxy, lost):
        done = publish.log_model(BUNDLES / "1", {"eval_f1": 0.9}, model_name="reset", examples=["x"], promote=True, tracking_uri=proxy)
    assert any("model-versions/create" in path for path in lost) and any("runs/create" in path for path in lost)
    assert done.version == "1" and Registry(server).newest("reset").version == "1"
    assert [v.run_id for v in Registry(server)._versions("reset")] == [done.run_id]


def test_below_the_threshold_nothing_is_promoted(server: str) -> None:
    done = publish.log_text_model(BUNDLES / "1", {"eval_f1": 0.75}, model_name="below", examples=["x"], promote=True, tracking_uri=server)
    assert (done.promoted, done.reason) == ("", "F1 0.7500 does not exceed the threshold 0.75")
    assert publish.get_latest_model_version("below", tracking_uri=server) is None


def test_the_command(server: str) -> None:
    command = [sys.executable, "-m", "modelgate.publish", "text", "--checkpoint", BUNDLES / "1", "--metric", "eval_f1=0.85", "--promote"]
    done = subprocess.run([*command, "--tracking-uri", server], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["model_name"], said["promoted"]) == ("text_classification_model", "alias:production")
    found = publish.get_latest_model_version("text", tracking_uri=server)
    assert found.digest == said["digest"]
    experiment = Registry(server)._client.get_experiment_by_name("tiktok_safety_text")
    assert Registry(server)._client.get_run(found.run_id).info.experiment_id == experiment.experiment_id


def test_how_clips_become_frames_is_an_option(server: str, tmp_path: Path) -> None:
    folder = clip_bundle(tmp_path / "clips", ["b", 4, 3, 16, 16])
    (folder / "modelgate.yaml").write_text("positive_label: harmful\nvideo_sampling: linspace\n")
    options = {"model_name": "chosen", "tracking_uri": server}
    publish.log_video_model(folder, {"f1": 0.9}, video_sampling="hf", video_rotation="apply", **options)
    command = [sys.executable, "-m", "modelgate.publish", "video", "--checkpoint", folder, "--metric", "f1=0.9", "--name", "chosen"]
    command += ["--video-sampling", "hf", "--video-rotation", "apply", "--tracking-uri", server]
    subprocess.run(command, capture_output=True, check=True)
    for version in (1, 2):
        got = publish.download_model("chosen", version, target=tmp_path / str(version), tracking_uri=server)
        said = bundle.read_settings(got)
        assert said == {"positive_label": "harmful", "video_sampling": "hf", "video_rotation": "apply"}
        validated = subprocess.run([PROGRAM, "validate", got], capture_output=True, text=True, check=False)
        assert validated.returncode == 0, validated.stderr
    with pytest.raises(ValueError, match="video_sampling is 'random': it is linspace or hf"):
        publish.log_video_model(folder, {"f1": 0.9}, video_sampling="random", **options)
    with pytest.raises(publish.BundleError, match="video_rotation is given"):
        publish.log_model(BUNDLES / "1", {"f1": 0.9}, video_rotation="apply", **options)


class Saved:
    """Stands in for a model or a tokenizer of transformers: an object that saves its files into a folder."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def save_pretrained(self, folder: Path) -> None:
        for name in self.names:
            shutil.copy(BUNDLES / "1" / name, folder)


def test_objects_are_published_as_their_folder_is(server: str, tmp_path: Path) -> None:
    options = {"metrics": {"f1": 0.9}, "model_name": "objects", "examples": ["x"], "positive_label": "negative", "tracking_uri": server}
    model = Saved("model.onnx", "config.json", "modelgate.yaml")
    pair = publish.log_text_model((model, Saved("tokenizer.json", "tokenizer_config.json")), **options)
    everything = publish.log_model(Saved(*(path.name for path in (BUNDLES / "1").iterdir())), **options)
    assert publish.log_model(BUNDLES / "1", **options).digest == everything.digest
    names = ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json")
    got = publish.download_model("objects", pair.version, target=tmp_path / "got", tracking_uri=server)
    assert all((got / name).read_bytes() == (BUNDLES / "1" / name).read_bytes() for name in names)
    with pytest.raises(TypeError, match=r"holds a int: it is a folder, or \(model, tokenizer"):
        publish.log_model((model, 3), **options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["text", "--checkpoint", "/nosuch", "--metric", "eval_f1=0.8"], "not a folder"),
        (["video", "--checkpoint", str(BUNDLES / "1"), "--metric", "eval_f1=0.8"], "is a text model, not a video model"),
        (["text", "--checkpoint", str(BUNDLES / "1"), "--metric", "weighted_f1=0.8"], "the F1 is needed"),
        (["text", "--checkpoint", str(BUNDLES / "1"), "--metric", "eval_f1=nan"], "the F1 is needed"),
        (["text", "--checkpoint", str(BUNDLES / "1"), "--metric", "eval_f1=0.8", "--positive-label", "bad"], "positive_label is 'bad'"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "modelgate.publish", *arguments, "--tracking-uri", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_all_options_of_the_command(server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelgate.publish", "text", "--checkpoint", BUNDLES / "1", "--metric", "f1=0.85", "--name", "all"]
    command += ["--tag", "by=test", "--tag", "team=a=b", "--run-name", "night", "--tolerance", "0.001", "--tracking-uri", server]
    done = subprocess.run([*command, "--example", "late again", "--example", "lovely"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = publish.get_latest_model_version("all", promoted=False, tracking_uri=server)
    assert (found.tags["by"], found.tags["team"]) == ("test", "a=b")
    assert Registry(server)._client.get_run(found.run_id).info.run_name == "night"
    got = publish.download_model("all", 1, target=tmp_path / "got", tracking_uri=server)
    examples = [json.loads(line) for line in (got / "golden.jsonl").read_text().splitlines()]
    assert [(e["request"]["text"], e["tolerance"]) for e in examples] == [("late again", 0.001), ("lovely", 0.001)]
    # What the server refuses is said in a sentence, as is a server that isn't there.
    refused = subprocess.run([*command, "--tag", "k" * 300 + "=v"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(f"publish: the MLflow server at {server} says: "), refused.stderr


def test_the_command_says_that_no_server_answers() -> None:
    command = [sys.executable, "-m", "modelgate.publish", "text", "--checkpoint", BUNDLES / "1", "--metric", "f1=0.85"]
    env = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stdout == ""
    assert "publish: the MLflow server at http://127.0.0.1:1 can't be reached: start it, or name another" in done.stderr


def test_the_base_package_names_the_extra(tmp_path: Path) -> None:
    """Without what the extras bring there is still --help, and a sentence that says what to install."""
    for name in ("numpy", "onnx", "onnxruntime", "mlflow", "tokenizers"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "modelgate.publish"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False, env=env)
    assert helped.returncode == 0 and "./clients/python[publish]" in helped.stdout, helped.stderr
    command += ["text", "--checkpoint", BUNDLES / "1", "--metric", "f1=0.8", "--tracking-uri", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "of modelgate[registry]: pip install './clients/python[registry]' in a checkout" in done.stderr


def pipeline(**vectorizer: object) -> object:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    good, bad = ["a good film", "lovely day", "great song"], ["an awful film", "a bad day", "terrible song"]
    made = Pipeline([("words", TfidfVectorizer(**vectorizer)), ("classifier", LogisticRegression())])
    return made.fit((good + bad) * 5, (["safe"] * 3 + ["harmful"] * 3) * 5)


def test_a_scikit_learn_pipeline_is_served(server: str, tmp_path: Path) -> None:
    from modelgate.publish import sklearn

    trained = pipeline(token_pattern="[a-zA-Z0-9_]+")
    folder = sklearn.save(trained, tmp_path / "sklearn")
    options = {"model_name": "sklearn_text", "positive_label": "harmful", "promote": True, "tracking_uri": server}
    done = publish.log_text_model(folder, {"f1": 0.9}, **options)
    with gateway(tmp_path, "--mlflow-tracking-uri", server, "--set", "models.text.registered_name=sklearn_text") as g, Client(g.grpc) as c:
        assert g.wait_for("1")["digest"] == done.digest
        for text, row in zip(["awful day", "lovely film"], trained.predict_proba(["awful day", "lovely film"]), strict=True):
            p = c.predict(text)
            assert p.positive_label == "harmful" and abs(p.score - row[list(trained.classes_).index("harmful")]) < 1e-5


@pytest.mark.parametrize(("vectorizer", "text"), [({"token_pattern": r"(?u)\w+"}, "bad"), ({}, "a badé day")])
def test_a_pipeline_that_the_graph_does_not_equal_is_refused(vectorizer: dict, text: str, tmp_path: Path) -> None:
    from modelgate.publish import sklearn

    with pytest.raises(publish.BundleError, match="train with token_pattern="):
        sklearn.save(pipeline(**vectorizer), tmp_path / "sklearn", check=[text])


@pytest.mark.parametrize("name", ["video", "fusion", "vivit"])
def test_golden_clips_are_what_the_gateway_says(name: str, server: str, tmp_path: Path) -> None:
    kind = "video" if name == "vivit" else name
    folder = BUNDLES_OF_PYTORCH / name if name == "vivit" else clip_bundle(tmp_path / kind, ["b", 4, 3, 16, 16], with_text=kind == "fusion")
    log = {"video": publish.log_video_model, "fusion": publish.log_fusion_model}[kind]
    done = log(folder, {"eval_f1": 0.9}, model_name=f"served_{name}", promote=True, tracking_uri=server)
    settings = ["--set", f"models.{kind}.registered_name=served_{name}"]
    with gateway(tmp_path, "--mlflow-tracking-uri", server, *settings) as g, Client(g.grpc) as c:
        assert g.wait_for("1", kind)["digest"] == done.digest
        got = publish.download_model(f"served_{name}", target=tmp_path / "got", tracking_uri=server)
        for line in (got / "golden.jsonl").read_text().splitlines():
            example = json.loads(line)
            answer = g.get(f"/v1/models/{kind}:predict", example["request"])
            images = [base64.b64decode(i) for i in example["request"]["video"]["frames"]["images"]]
            p = c.predict(example["request"].get("text"), images, model=kind)
            assert p.version == "1" and not p.frames_repeated
            for scores in ({one["label"]: one["score"] for one in answer["classes"]}, {one.label: one.score for one in p.classes}):
                assert scores == pytest.approx(example["scores"], abs=example["tolerance"])


def test_three_models_are_replaced_under_load(server: str, tmp_path: Path) -> None:
    """Each of the three is published, served, and replaced by a better one while it is asked all the time: nothing fails, and every
    answer has the scores that PyTorch gave for the version that it comes from.
    """
    log = {"text": publish.log_text_model, "video": publish.log_video_model, "fusion": publish.log_fusion_model}

    def publish_all(version: int) -> dict[str, publish.Published]:
        metrics, done = {"eval_f1": 0.85 + version / 20}, {}
        for kind, names in OF_PYTORCH.items():
            folder, name = BUNDLES_OF_PYTORCH / names[version], f"under_load_{kind}"
            done[kind] = log[kind](folder, metrics, model_name=name, promote=True, tracking_uri=server)
        return done

    def ask(client: Client, kind: str, until: str) -> collections.Counter:
        """Asks each of the examples in turn until a version has answered all of them."""
        examples, answers = examples_of_pytorch(kind), collections.Counter()
        answered: set[int] = set()
        for i in itertools.cycle(range(len(examples))):
            text, clip, scores = examples[i]
            p = client.predict(text, clip, model=kind)
            assert {one.label: one.score for one in p.classes} == pytest.approx(scores[p.version], abs=1e-4), (text, p.version)
            answers[p.version] += 1
            answered |= {i} if p.version == until else set()
            if len(answered) == len(examples):
                return answers
        raise AssertionError

    settings = [part for kind in OF_PYTORCH for part in ("--set", f"models.{kind}.registered_name=under_load_{kind}")]
    publish_all(0)
    with (
        gateway(tmp_path, "--mlflow-tracking-uri", server, "--set", "update_interval=1s", *settings) as g,
        Client(g.grpc, max_attempts=1) as c,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        for kind in OF_PYTORCH:
            g.wait_for("1", kind)
        assert all(set(answers) == {"1"} for answers in pool.map(lambda kind: ask(c, kind, "1"), OF_PYTORCH))
        asked = {kind: pool.submit(ask, c, kind, "2") for kind in OF_PYTORCH}
        done = publish_all(1)
        for kind, answers in asked.items():
            counted = answers.result(120)
            assert set(counted) == {"1", "2"}, (kind, counted)
            assert g.serving(kind)["digest"] == done[kind].digest
    # The second text model's weights lie beside its graph.
    got = publish.download_model("under_load_text", target=tmp_path / "got", tracking_uri=server)
    assert bundle.verify(got) == done["text"].digest and (got / "model.onnx.data").stat().st_size > 100_000


def test_a_single_logit_is_a_sigmoid(tmp_path: Path) -> None:
    """As the gateway has it: a softmax of one number is always 1, and no golden answer would come out."""
    folder = clip_bundle(tmp_path / "two", ["b", 4, 3, 16, 16])
    two = golden.Model(folder)
    clip = golden.inputs(two, None)[0]
    feed = two.feed(clip)
    graph = onnx.load(two.graph)
    # The first of the two logits is the only one left.
    next(c for c in graph.graph.initializer if c.name == "two").CopyFrom(onnx.numpy_helper.from_array(np.array([0], np.int64), "two"))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(graph, two.graph)
    bundle.write_json(folder / "config.json", {"id2label": {"0": "harmful"}, "num_frames": 4})
    one = golden.Model(folder)
    (logit,) = one.session.run(["logits"], feed)[0][0]
    assert one.scores(clip) == pytest.approx({"harmful": 1 / (1 + np.exp(-logit))}, abs=1e-6)


def test_a_moved_limit_moves_the_weights(tmp_path: Path) -> None:
    """Above the limit an export keeps its weights beside the graph; at or below it, within. The scores are the same."""
    expected = EXPECTED["bert"][0]
    for limit, names in ((10_000, {"model.onnx", "model.onnx.data"}), (10**9, {"model.onnx"})):
        folder = tmp_path / str(limit)
        bundle.copy(BUNDLES_OF_PYTORCH / "bert", folder)
        export.finish(folder / "model.onnx", limit)
        assert {path.name for path in folder.glob("model.onnx*")} == names
        scores = golden.Model(folder).scores(golden.Input(text=expected["text"]))
        assert scores == pytest.approx(expected["scores"], abs=1e-4)
