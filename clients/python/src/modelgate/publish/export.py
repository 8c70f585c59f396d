"""Hugging Face checkpoints to ONNX bundles, checked against PyTorch on the spot. Needs modelgate[publish]."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from modelgate.publish import golden
from modelgate.publish.bundle import SETTINGS, BundleError, needs, write_json

_OPSET = 18
_TOLERANCE = 1e-4
# Bytes of weights that go into model.onnx itself. Protobuf holds 2 GiB in one file; the rest is left for the graph.
EXTERNAL_ABOVE = 2_000_000_000
_FUSION_NAMES = ("text_input_ids", "text_attention_mask", "video_pixel_values")
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


def checkpoint(source: Path, folder: Path, kind: str | None, external_above: int = EXTERNAL_ABOVE) -> dict[str, Any]:
    """Exports a checkpoint of a sequence or a video classifier into folder, and returns what there is to record about it.

    Weights of more than external_above bytes go into model.onnx.data beside model.onnx.
    """
    try:
        import torch
        import transformers
    except ImportError as err:
        raise ImportError(needs("publish", f"{source} holds no model.onnx, and an export takes torch, of")) from err
    if kind is None:
        kind = "video" if any((source / name).is_file() for name in _PROCESSORS) else "text"
    if kind not in ("text", "video"):
        raise BundleError(f"{source} holds no model.onnx: a fusion network is no class of transformers; export it with fusion() first")
    folder.mkdir(parents=True)
    take_along(source, folder, kind)
    if kind == "text":
        network = transformers.AutoModelForSequenceClassification.from_pretrained(source)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        if not (folder / "tokenizer.json").is_file():
            raise BundleError(f"{source} has no fast tokenizer: convert it to a tokenizer.json first")
    else:
        network = transformers.AutoModelForVideoClassification.from_pretrained(source)
    network.config.save_pretrained(folder)
    feed = _text_feed(torch, network) if kind == "text" else _video_feed(torch, network.config)
    names = list(feed)
    _export(torch, network, names, feed, folder, external_above)
    return _check(torch, network, folder) | {"torch": torch.__version__, "transformers": transformers.__version__}


def fusion(
    network: Any,
    text: Path,
    video: Path,
    labels: Mapping[int, str],
    folder: Path,
    frames: int,
    length: int = 32,
    external_above: int = EXTERNAL_ABOVE,
) -> Path:
    """Exports a fusion network as a bundle for log_fusion_model, checked against PyTorch.

    network is a torch module whose forward takes input_ids, attention_mask and pixel_values, or text_input_ids, text_attention_mask and
    video_pixel_values, and returns logits, or an object with logits. text and video are the folders of its tokenizer and of its image
    processor.
    """
    import torch
    import transformers

    folder.mkdir(parents=True)
    transformers.AutoTokenizer.from_pretrained(text).save_pretrained(folder)
    _copy_processor(video, folder)
    config = {"id2label": {str(i): label for i, label in labels.items()}, "num_frames": frames}
    write_json(folder / "config.json", config)
    processor = golden.Frames(folder, config, [None, frames, 3, None, None])
    ids = torch.ones(2, length, dtype=torch.int64) * 5
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.rand(2, frames, 3, *processor.crop)}
    feed = _named_as(network, plain)
    _export(torch, network, list(feed), feed, folder, external_above)
    _check(torch, network, folder)
    return folder


def _named_as(network: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a fusion as the network's forward calls them."""
    takes = inspect.signature(network.forward).parameters
    for names in (_FUSION_NAMES, tuple(plain)):
        if all(name in takes for name in names):
            return dict(zip(names, plain.values(), strict=True))
    raise BundleError(f"forward takes {list(takes)}: a fusion takes {', '.join(_FUSION_NAMES)}, or the same without text_ and video_")


def take_along(source: Path, folder: Path, kind: str) -> None:
    """Copies what a bundle has just as its checkpoint: its modelgate.yaml, if there is one, and how its clips are prepared."""
    if (source / SETTINGS).is_file():
        shutil.copyfile(source / SETTINGS, folder / SETTINGS)
    if kind == "video":
        _copy_processor(source, folder)


def _copy_processor(source: Path, folder: Path) -> None:
    # As the checkpoint has it, and not as a class of today would write it.
    found = [name for name in _PROCESSORS if (source / name).is_file()]
    if not found:
        raise BundleError(f"{source} has no preprocessor_config.json: save the image processor with the model")
    for name in found:
        shutil.copyfile(source / name, folder / name)


def _text_feed(torch: Any, network: Any) -> dict[str, Any]:
    ids = torch.ones(2, 16, dtype=torch.int64) * 5
    feed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # Where there is more than one type of token, the type counts.
    if getattr(network.config, "type_vocab_size", 0) > 1:
        feed["token_type_ids"] = torch.zeros_like(ids)
    return feed


def _video_feed(torch: Any, config: Any) -> dict[str, Any]:
    size = config.image_size if isinstance(config.image_size, (list, tuple)) else (config.image_size, config.image_size)
    return {"pixel_values": torch.rand(2, config.num_frames, config.num_channels, *size)}


def _shapes(torch: Any, names: list[str]) -> dict[str, Any]:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2)
    return {name: {0: batch} if name.endswith("pixel_values") else {0: batch, 1: length} for name in names}


def _export(torch: Any, network: Any, names: list[str], feed: dict[str, Any], folder: Path, external_above: int) -> None:
    class Logits(torch.nn.Module):
        """The network with its inputs in order and its logits alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: dict[str, Any]) -> Any:
            out = self.network(**inputs)
            return getattr(out, "logits", out)

    network.eval()
    with torch.no_grad():
        torch.onnx.export(
            Logits().eval(),
            (),
            folder / "model.onnx",
            kwargs={"inputs": feed},
            input_names=names,
            output_names=["logits"],
            dynamo=True,
            opset_version=_OPSET,
            dynamic_shapes={"inputs": _shapes(torch, names)},
            external_data=True,
            verbose=False,
        )
    finish(folder / "model.onnx", external_above)


def finish(graph: Path, external_above: int = EXTERNAL_ABOVE) -> None:
    """Completes a graph whose weights lie beside it, in <graph>.data: they move into it, unless they have more than external_above bytes.

    What the exporter noted about this machine, paths and lines of source code at every node, is left out.
    """
    data = graph.with_name(graph.name + ".data")
    inside = data.is_file() and data.stat().st_size <= external_above
    model = onnx.load(graph, load_external_data=inside)
    for part in _parts(model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.write_bytes(model.SerializeToString(deterministic=True))
    if inside:
        data.unlink()


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    """Everything in a model that has notes."""
    yield model
    bodies: list[Any] = [model.graph, *model.functions]
    while bodies:
        body = bodies.pop()
        yield body
        yield from body.node
        yield from body.value_info
        if isinstance(body, onnx.GraphProto):
            yield from (*body.input, *body.output, *body.initializer)
        for attribute in (a for node in body.node for a in node.attribute):
            bodies += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check(torch: Any, network: Any, folder: Path) -> dict[str, Any]:
    """Compares the logits of both on the golden inputs."""
    model = golden.Model(folder)
    worst = 0.0
    for example in golden.inputs(model, None):
        feed = model.feed(example)
        with torch.no_grad():
            out = network(**{name: torch.from_numpy(value) for name, value in feed.items()})
        want = getattr(out, "logits", out).numpy()
        worst = max(worst, float(abs(model.session.run(["logits"], feed)[0] - want).max()))
    if not worst <= _TOLERANCE * max(1.0, float(abs(want).max())):
        raise BundleError(f"the exported graph's logits differ by {worst:.2g} from PyTorch's: it is not published")
    return {"torch_difference": worst}
