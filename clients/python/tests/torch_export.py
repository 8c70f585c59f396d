"""Exports real architectures with small random weights and compares them with PyTorch. `make test-torch` runs it; CI has no torch."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway import ROOT, gateway
from modelgate import publish
from modelgate.publish import bundle, export, golden
from registry import mlflow_server

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TOKENIZER = ROOT / "examples/models/text/1"
LABELS = {0: "safe", 1: "harmful"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NAMED = {"id2label": LABELS, "label2id": {"safe": 0, "harmful": 1}}


def text_checkpoint(folder: Path, config: object, kind: str) -> Path:
    torch.manual_seed(1)
    getattr(transformers, kind)(config).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())
    return folder


def video_checkpoint(folder: Path, config: object, kind: str) -> Path:
    torch.manual_seed(2)
    getattr(transformers, kind)(config).eval().save_pretrained(folder)
    said = {
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    bundle.write_json(folder / "preprocessor_config.json", {**said, "image_processor_type": "VideoMAEImageProcessor"})
    return folder


def text_config(name: str) -> tuple[object, str]:
    t = transformers
    if name == "xlm-roberta":
        config = t.XLMRobertaConfig(vocab_size=12000, max_position_embeddings=140, type_vocab_size=1, **SMALL, **NAMED)
        return config, "XLMRobertaForSequenceClassification"
    if name == "bert":
        return t.BertConfig(vocab_size=12000, **SMALL, **NAMED), "BertForSequenceClassification"
    config = t.DistilBertConfig(vocab_size=12000, dim=32, n_layers=2, n_heads=2, hidden_dim=64, **NAMED)
    return config, "DistilBertForSequenceClassification"


def video_config(name: str) -> tuple[object, str]:
    t = transformers
    if name == "videomae":
        return t.VideoMAEConfig(image_size=32, num_frames=16, **SMALL, **NAMED), "VideoMAEForVideoClassification"
    if name == "vivit":
        return t.VivitConfig(image_size=32, num_frames=8, tubelet_size=[2, 16, 16], **SMALL, **NAMED), "VivitForVideoClassification"
    return t.TimesformerConfig(image_size=32, num_frames=8, **SMALL, **NAMED), "TimesformerForVideoClassification"


@pytest.mark.parametrize("name", ["xlm-roberta", "bert", "distilbert"])
def test_text(name: str, tmp_path: Path) -> None:
    said = export.checkpoint(text_checkpoint(tmp_path / "checkpoint", *text_config(name)), tmp_path / "bundle", None)
    print(name, said)
    model = golden.Model(tmp_path / "bundle")
    assert model.kind == "text" and model.labels() == ["safe", "harmful"] and said["torch_difference"] < 1e-4


@pytest.mark.parametrize("name", ["videomae", "vivit", "timesformer"])
def test_video(name: str, tmp_path: Path) -> None:
    said = export.checkpoint(video_checkpoint(tmp_path / "checkpoint", *video_config(name)), tmp_path / "bundle", "video")
    print(name, said)
    model = golden.Model(tmp_path / "bundle")
    assert model.kind == "video" and said["torch_difference"] < 1e-4
    golden.write(model, golden.inputs(model, None), 1e-4)
    for line in (tmp_path / "bundle/golden.jsonl").read_text().splitlines():
        assert len(json.loads(line)["request"]["video"]["frames"]["images"]) >= model.frames.count


def test_fusion(tmp_path: Path) -> None:
    text = text_checkpoint(tmp_path / "text", *text_config("xlm-roberta"))
    video = video_checkpoint(tmp_path / "video", *video_config("videomae"))

    class Fusion(torch.nn.Module):
        """Two backbones, cross-attention and a head."""

        def __init__(self) -> None:
            super().__init__()
            self.text = transformers.XLMRobertaModel.from_pretrained(text)
            self.video = transformers.VideoMAEModel.from_pretrained(video)
            self.cross = torch.nn.MultiheadAttention(32, 4, batch_first=True)
            self.head = torch.nn.Linear(64, 2)

        def forward(self, text_input_ids, text_attention_mask, video_pixel_values):
            t = self.text(input_ids=text_input_ids, attention_mask=text_attention_mask).last_hidden_state
            v = self.video(pixel_values=video_pixel_values).last_hidden_state
            fused, _ = self.cross(t[:, :1], v, v)
            return self.head(torch.cat([t[:, 0], fused[:, 0]], dim=-1))

    folder = export.fusion(Fusion().eval(), text, video, LABELS, tmp_path / "bundle", frames=16)
    model = golden.Model(folder)
    assert model.kind == "fusion" and golden.write(model, golden.inputs(model, None), 1e-4) == 3


def test_pytorch_says_what_is_committed() -> None:
    """Networks that are made anew give the scores that the gateway is held against without torch."""
    done = subprocess.run([sys.executable, ROOT / "tools/parity/pytorch.py", "--check"], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


@pytest.mark.parametrize("name", ["VideoMAE", "Vivit", "Timesformer"])
def test_golden_tensors_are_the_processors(name: str, tmp_path: Path) -> None:
    reader = getattr(transformers, f"{name}VideoProcessor")(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    reader.save_pretrained(tmp_path)
    frames = golden.Frames(tmp_path, {"num_frames": 4}, [None, 4, 3, 32, 32])
    clip = frames.made_up(7)
    want = reader(torch.from_numpy(clip).permute(0, 3, 1, 2), return_tensors="pt")["pixel_values"].numpy()
    assert abs(frames.tensor(clip) - want).max() < 1e-6


@pytest.mark.parametrize(("limit", "files"), [(50_000, {"model.onnx", "model.onnx.data"}), (10**9, {"model.onnx"})])
def test_large_weights_lie_beside_the_graph(limit: int, files: set[str], tmp_path: Path) -> None:
    checkpoint = text_checkpoint(tmp_path / "checkpoint", *text_config("xlm-roberta"))
    said = export.checkpoint(checkpoint, tmp_path / "bundle", None, external_above=limit)
    assert {path.name for path in (tmp_path / "bundle").glob("model.onnx*")} == files and said["torch_difference"] < 1e-4


def served_as_trained(checkpoint: Path, folder: Path, objects: object = None) -> publish.Published:
    """Publishes a checkpoint of a text model, or its objects, and holds what the gateway says of a text against PyTorch."""
    with mlflow_server(folder, "venv", "python") as server:
        done = publish.log_text_model(objects or checkpoint, {"eval_f1": 0.8}, promote=True, positive_label="harmful", tracking_uri=server)
        with gateway(folder, "--mlflow-tracking-uri", server) as g:
            assert g.wait_for("1", seconds=300)["digest"] == done.digest
            text = "Video này hay quá, cảm ơn bạn đã chia sẻ"
            network = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint)
            encoded = transformers.AutoTokenizer.from_pretrained(checkpoint)(text, return_tensors="pt", return_token_type_ids=False)
            want = torch.softmax(network(**encoded).logits, -1)[0, 1].item()
            assert abs(g.get("/v1/models/text:predict", {"text": text})["score"] - want) < 1e-4
        got = publish.download_model(target=folder / "got", tracking_uri=server)
        assert bundle.verify(got) == done.digest
    return done


def test_a_checkpoint_is_published_and_served(tmp_path: Path) -> None:
    served_as_trained(text_checkpoint(tmp_path / "checkpoint", *text_config("xlm-roberta")), tmp_path)


def test_objects_are_published_and_served(tmp_path: Path) -> None:
    """A model and its tokenizer as a training script has them."""
    folder = text_checkpoint(tmp_path / "checkpoint", *text_config("xlm-roberta"))
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    served_as_trained(folder, tmp_path, (network, transformers.AutoTokenizer.from_pretrained(folder)))


def test_a_clip_model_and_its_settings(tmp_path: Path) -> None:
    """A network with its processor, and a checkpoint's own modelgate.yaml: both end in the bundle."""
    processor = transformers.VideoMAEVideoProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    network = transformers.VideoMAEForVideoClassification(video_config("videomae")[0]).eval()
    checkpoint = tmp_path / "checkpoint"
    network.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    (checkpoint / "modelgate.yaml").write_text("video_sampling: hf\n")
    with mlflow_server(tmp_path, "venv", "python") as server:
        for i, source in enumerate([(network, processor), checkpoint], 1):
            publish.log_video_model(source, {"eval_f1": 0.8}, model_name="clips", tracking_uri=server)
            got = publish.download_model("clips", i, target=tmp_path / str(i), tracking_uri=server)
            assert golden.Model(got).frames.sampling == ("linspace", "hf")[i - 1]


def test_more_than_two_gib_are_published_and_served(tmp_path: Path) -> None:
    """Most of it is the table of a vocabulary, as in XLM-R: nearly nothing to compute."""
    sizes = {"hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.XLMRobertaConfig(vocab_size=600_000, max_position_embeddings=140, type_vocab_size=1, **sizes, **NAMED)
    # pytest keeps its folders, and this one takes 10 GB.
    with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
        folder = Path(scratch)
        served_as_trained(text_checkpoint(folder / "checkpoint", config, "XLMRobertaForSequenceClassification"), folder)
        assert (folder / "got/model.onnx.data").stat().st_size > 2**31
