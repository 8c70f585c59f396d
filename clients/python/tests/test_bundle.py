"""The forms on disk: manifest, digest, settings, golden examples."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clips import clip_bundle
from gateway import BUNDLES, PROGRAM
from modelgate import publish
from modelgate.publish import bundle, golden


def test_the_digest_is_over_sorted_lines(tmp_path: Path) -> None:
    # "a-b" sorts before "a/c" and "Z" before "a": by bytes, not as a folder listing has them.
    for name in ("a/c", "a-b", "Z", "é"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    lines = [f"{hashlib.sha256(n.encode()).hexdigest()} {len(n.encode())} {n}\n" for n in ("Z", "a-b", "a/c", "é")]
    assert bundle.digest_of(bundle.files_of(tmp_path)) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_manifest_lists_every_other_file(tmp_path: Path) -> None:
    bundle.copy(BUNDLES / "1", tmp_path / "b")
    digest = bundle.seal(tmp_path / "b")
    listed = json.loads((tmp_path / "b/manifest.json").read_text())["files"]
    assert {f["path"] for f in listed} == {p.name for p in (BUNDLES / "1").iterdir()} - {"manifest.json"}
    assert bundle.verify(tmp_path / "b") == digest
    (tmp_path / "b/config.json").write_text("{}")
    with pytest.raises(bundle.BundleError, match=r"config\.json"):
        bundle.verify(tmp_path / "b")


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(bundle.BundleError, match="is a link"):
        bundle.files_of(tmp_path)


def test_settings_replace_their_own_lines_only(tmp_path: Path) -> None:
    (tmp_path / "modelgate.yaml").write_text("# ours\nthreshold: 0.4 # low\nspecial_tokens: text\n")
    bundle.write_settings(tmp_path, threshold=0.6, positive_label='a "b"', max_length=None)
    assert (tmp_path / "modelgate.yaml").read_text() == '# ours\nspecial_tokens: text\nthreshold: 0.6\npositive_label: "a \\"b\\""\n'
    assert bundle.read_settings(tmp_path)["threshold"] == "0.6"


@pytest.mark.parametrize("label", ['a "b"', "it's # x", "a\\b", "độc hại 😊", "yes", "1"])
def test_labels_are_read_as_they_were_written(label: str, tmp_path: Path) -> None:
    """positive_label is compared with the labels, so it must come back as it was given."""
    bundle.write_settings(tmp_path, positive_label=label)
    assert bundle.read_settings(tmp_path) == {"positive_label": label}


@pytest.mark.parametrize("shape", [["b", 4, 3, 16, 16], ["b", 3, 4, 16, 16]], ids=["BTCHW", "BCTHW"])
def test_golden_clips(shape: list[object], tmp_path: Path) -> None:
    model = golden.Model(clip_bundle(tmp_path / "v", shape))
    assert (model.kind, model.frames.count, model.frames.size, model.frames.crop) == ("video", 4, (20, 20), (16, 16))
    example = golden.inputs(model, None)[0]
    means = (example.frames[:, 2:18, 2:18].astype(np.float64) / 255 - 0.5).mean(axis=(0, 1, 2)) / 0.25
    want = 1 / (1 + np.exp(means[0] - means[2]))
    assert abs(model.scores(example)["harmful"] - want) < 1e-5
    assert len(example.request()["video"]["frames"]["images"]) == 4 and "text" not in example.request()


@pytest.mark.parametrize(
    ("settings", "want"),
    [("", [0, 2, 4, 6]), ("video_sampling: linspace # ours\n", [0, 2, 4, 6]), ("video_sampling: hf\n", [0, 1, 3, 5])],
)
def test_a_golden_clip_tells_which_frames_were_chosen(settings: str, want: list[int], tmp_path: Path) -> None:
    folder = clip_bundle(tmp_path / "v", ["b", 4, 3, 16, 16])
    (folder / "modelgate.yaml").write_text(settings)
    model = golden.Model(folder)
    *short, longer = golden.inputs(model, None)
    assert [len(e.frames) for e in short] == [4, 4] and len(longer.frames) == 7 and model.frames.chosen(7).tolist() == want
    scores = {tuple(some): model.scores(golden.Input(frames=longer.frames[list(some)])) for some in ([0, 2, 4, 6], [0, 1, 3, 5])}
    assert model.scores(longer) == scores.pop(tuple(want))
    (otherwise,) = scores.values()
    assert abs(otherwise["harmful"] - model.scores(longer)["harmful"]) > 1e-3
    assert golden.write(model, [longer], 1e-4) == 1 and (folder / "golden.jsonl").stat().st_size < 3000


def test_png_is_what_others_read(tmp_path: Path) -> None:
    # Decoded by hand: the rows without their filter byte.
    import struct
    import zlib

    frame = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    data = golden.png(frame)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (7, 5)
    start = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + size]), np.uint8).reshape(5, 22)
    assert (rows[:, 1:].reshape(5, 7, 3) == frame).all()


def test_a_fusion_has_text_and_clip(tmp_path: Path) -> None:
    model = golden.Model(clip_bundle(tmp_path / "f", ["b", 4, 3, 16, 16], with_text=True))
    assert model.kind == "fusion" and golden.write(model, golden.inputs(model, None), 1e-4) == 3
    line = json.loads((tmp_path / "f/golden.jsonl").read_text().splitlines()[0])
    assert set(line["request"]) == {"text", "video"} and set(line["scores"]) == {"safe", "harmful"}


@pytest.mark.parametrize(
    ("settings", "tokenizer", "config", "want"),
    [
        ("max_length: 32\n", {"model_max_length": 100}, {}, 32),
        ("", {"model_max_length": 100}, {}, 100),
        ("", {"model_max_length": 100}, {"max_position_embeddings": 64}, 64),
        ("", {"model_max_length": 1e30}, {"max_position_embeddings": 66, "model_type": "xlm-roberta", "pad_token_id": 1}, 64),
        ("", {"model_max_length": 1e30}, {"max_position_embeddings": 66, "model_type": "roberta"}, 65),
        ("", {}, {"max_position_embeddings": 66, "model_type": "bert"}, 66),
        ("", {"model_max_length": 1e30}, {}, None),
    ],
)
def test_texts_are_cut_where_the_gateway_cuts_them(settings: str, tokenizer: dict, config: dict, want: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    bundle.copy(BUNDLES / "1", folder)
    (folder / "modelgate.yaml").write_text(settings)
    for name, edits, without in [
        ("tokenizer_config.json", tokenizer, "model_max_length"),
        ("config.json", config, "max_position_embeddings"),
    ]:
        kept = {k: v for k, v in bundle.read_json(folder / name).items() if k != without}
        bundle.write_json(folder / name, {**kept, **edits})
    model = golden.Model(folder)
    golden.write(model, golden.inputs(model, None), 1e-4)
    run = subprocess.run([PROGRAM, "validate", folder, "--output", "json"], capture_output=True, text=True, check=False)
    report = json.loads(run.stdout)
    assert report["ok"], report["problem"]
    assert (model.max_length, report["model"]["MaxLength"], report["checked"]["Examples"]) == (want, want or 0, len(golden.TEXTS))


def test_without_a_graph_a_checkpoint_needs_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ImportError, match=r"takes torch, of modelgate\[publish\]: pip install './clients/python\[publish\]'"):
        publish.log_text_model(tmp_path / "checkpoint", {"f1": 0.9}, tracking_uri="http://127.0.0.1:1")


def test_a_checkpoints_own_settings_go_along(tmp_path: Path) -> None:
    from modelgate.publish import export

    for name in ("modelgate.yaml", "preprocessor_config.json", "optimizer.pt"):
        (tmp_path / "checkpoint").mkdir(exist_ok=True)
        (tmp_path / "checkpoint" / name).write_text(f"of {name}")
    for kind, want in (("video", {"modelgate.yaml", "preprocessor_config.json"}), ("text", {"modelgate.yaml"})):
        (tmp_path / kind).mkdir()
        export.take_along(tmp_path / "checkpoint", tmp_path / kind, kind)
        assert {path.name: path.read_text() for path in (tmp_path / kind).iterdir()} == {name: f"of {name}" for name in want}


def test_quantized_weights_are_measured(tmp_path: Path) -> None:
    from modelgate.publish import quantize

    rng = np.random.default_rng(3)
    names = {"ids": "input_ids", "mask": "attention_mask"}
    nodes = [
        helper.make_node("Gather", ["table", names["ids"]], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "one"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(rng.normal(size=(12000, 64)).astype(np.float32), "table"),
        numpy_helper.from_array(rng.normal(size=(64, 2)).astype(np.float32), "weights"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    specs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "l"]) for n in names.values()]
    graph = helper.make_graph(nodes, "g", specs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2])], constants)
    bundle.copy(BUNDLES / "1", tmp_path / "b")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "b/model.onnx")
    size = (tmp_path / "b/model.onnx").stat().st_size
    model = golden.Model(tmp_path / "b")
    difference = quantize.in_place(model, golden.inputs(model, None))
    assert 0 < difference < 0.05 and (tmp_path / "b/model.onnx").stat().st_size < size / 2
