"""Hugging Face checkpoints to ONNX bundles, checked against PyTorch on the spot. Needs modelgate[publish]."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgate.publish import golden
from modelgate.publish.bundle import BundleError, write_json

_OPSET = 18
_TOLERANCE = 1e-4
# Protobuf holds no more in one file.
_EXTERNAL_FROM = 2_000_000_000
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


def checkpoint(source: Path, folder: Path, kind: str | None) -> dict[str, Any]:
    """Exports a checkpoint of a sequence or a video classifier into folder, and returns what there is to record about it."""
    try:
        import torch
        import transformers
    except ImportError as err:
        raise ImportError(f"{source} holds no model.onnx, and an export takes torch: pip install modelgate[publish]") from err
    if kind is None:
        kind = "video" if any((source / name).is_file() for name in _PROCESSORS) else "text"
    folder.mkdir(parents=True)
    if kind == "text":
        network = transformers.AutoModelForSequenceClassification.from_pretrained(source)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        if not (folder / "tokenizer.json").is_file():
            raise BundleError(f"{source} has no fast tokenizer: convert it to a tokenizer.json first")
    elif kind == "video":
        network = transformers.AutoModelForVideoClassification.from_pretrained(source)
        _copy_processor(source, folder)
    else:
        raise BundleError(f"{source} holds no model.onnx: a fusion network is no class of transformers; export it with fusion() first")
    network.config.save_pretrained(folder)
    feed = _text_feed(torch, network) if kind == "text" else _video_feed(torch, network.config)
    names = list(feed)
    _export(torch, network, names, feed, _shapes(torch, names), folder)
    return _check(torch, network, folder) | {"torch": torch.__version__, "transformers": transformers.__version__}


def fusion(network: Any, text: Path, video: Path, labels: Mapping[int, str], folder: Path, frames: int, length: int = 32) -> Path:
    """Exports a fusion network as a bundle for log_fusion_model, checked against PyTorch.

    network is a torch module whose forward takes text_input_ids, text_attention_mask and video_pixel_values and returns logits, or an
    object with logits. text and video are the folders of its tokenizer and of its image processor.
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
    feed = {
        "text_input_ids": ids,
        "text_attention_mask": torch.ones_like(ids),
        "video_pixel_values": torch.rand(2, frames, 3, *processor.crop),
    }
    names = list(feed)
    _export(torch, network, names, feed, _shapes(torch, names), folder)
    _check(torch, network, folder)
    return folder


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


def _export(torch: Any, network: Any, names: list[str], feed: dict[str, Any], shapes: dict[str, Any], folder: Path) -> None:
    class Logits(torch.nn.Module):
        """The network with its inputs in order and its logits alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: dict[str, Any]) -> Any:
            out = self.network(**inputs)
            return getattr(out, "logits", out)

    network.eval()
    size = sum(p.numel() * p.element_size() for p in network.parameters())
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
            dynamic_shapes={"inputs": shapes},
            external_data=size > _EXTERNAL_FROM,
            verbose=False,
        )


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
