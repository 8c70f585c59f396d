"""Golden examples: inputs with the scores that a bundle gives them, computed from its files alone by ONNX Runtime.

Each line of golden.jsonl is {"request": ..., "scores": {label: score}, "tolerance": t}; request is the body of
POST /v1/models/{model}:predict, so that anyone can send it.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from modelgate.publish.bundle import CHOICES, GOLDEN, BundleError, graph_of, read_json, read_settings

TEXTS = (
    "This is the worst service I have ever had, and nobody even answered.",
    "Thank you, the crew was lovely and we landed early!",
    "ok",
    "Video này hay quá, cảm ơn bạn đã chia sẻ 😊",
    "Đừng xem clip này, nội dung rất độc hại và nguy hiểm.",
    # Longer than most models read: shows that both sides cut at the same place.
    "a long text that goes on and on, until it is cut off somewhere; " * 40,
)


# What the gateway takes.
MAX_EXAMPLES, MAX_TEXT = 1000, 65536
# The model types whose first position is pad_token_id + 1, so that 514 positions are for 512 tokens.
COUNT_FROM_PAD = {
    "camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "mluke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What one example is made of."""

    text: str | None = None
    frames: np.ndarray | None = None  # (frames, height, width, 3), uint8

    def request(self) -> dict[str, Any]:
        """The input as JSON of the API."""
        out: dict[str, Any] = {}
        if self.text is not None:
            out["text"] = self.text
        if self.frames is not None:
            out["video"] = {"frames": {"images": [base64.b64encode(png(f)).decode() for f in self.frames]}}
        return out


class Model:
    """A bundle as the gateway opens it, for one input at a time."""

    def __init__(self, folder: Path) -> None:
        graph = graph_of(folder)
        if graph is None:
            raise BundleError(f"{folder} holds no model.onnx: export one, or name a checkpoint")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.folder, self.graph = folder, graph
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # ONNX Runtime's own exceptions have no base of their own
            raise BundleError(f"{graph}: ONNX Runtime does not open it: {err}") from err
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.settings = read_settings(folder)
        self.config = read_json(folder / "config.json")
        names = {_plain(name) for name in self.inputs}
        self.strings = len(self.inputs) == 1 and next(iter(self.inputs.values())).type == "tensor(string)"
        self.takes_text = self.strings or "input_ids" in names
        self.takes_video = "pixel_values" in names
        if not self.takes_text and not self.takes_video:
            raise BundleError(f"{graph} takes {sorted(self.inputs)}: input_ids and attention_mask, pixel_values or one string are needed")
        self.kind = "fusion" if self.takes_text and self.takes_video else "video" if self.takes_video else "text"
        self._tokenizer = self._open_tokenizer() if self.takes_text and not self.strings else None
        self.max_length = self._cut() if self._tokenizer is not None else None
        self.frames = Frames(folder, self.config, self._video_shape()) if self.takes_video else None

    def _cut(self) -> int | None:
        """Has the tokenizer cut texts where the gateway does, and returns after how many tokens that is; None is never."""
        config = read_json(self.folder / "tokenizer_config.json")
        before = self._tokenizer.truncation
        self._tokenizer.no_truncation()
        fixed = next((i.shape[1] for name, i in self.inputs.items() if _plain(name) == "input_ids" and len(i.shape) == 2), None)
        length = int(self.settings.get("max_length") or (fixed if isinstance(fixed, int) else 0))
        if not length:
            said = float(config.get("model_max_length") or (before or {}).get("max_length") or 0)
            length = int(min(limit for limit in (said, self._positions(), 2**31 - 1) if limit))
        if length == 2**31 - 1:
            return None
        self._tokenizer.enable_truncation(length, direction=config.get("truncation_side") or (before or {}).get("direction") or "right")
        return length

    def _positions(self) -> int:
        """How many tokens the model has positions for; 0 if it doesn't say."""
        positions = self.config.get("max_position_embeddings") or 0
        if positions > 0 and self.config.get("model_type") in COUNT_FROM_PAD:
            pad = self.config.get("pad_token_id")
            positions -= (1 if pad is None else pad) + 1
        return max(positions, 0)

    def _open_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise BundleError(f"{path} is missing: save the fast tokenizer with the model")
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        return tokenizer

    def _video_shape(self) -> list[Any]:
        return next(i.shape for name, i in self.inputs.items() if _plain(name) == "pixel_values")

    def labels(self) -> list[str] | None:
        """The names of the classes in the order of the graph's output, if config.json has them."""
        names = self.config.get("id2label") or {}
        return [names[str(i)] for i in range(len(names))] or None

    def scores(self, example: Input) -> dict[str, float]:
        """The score of each label."""
        outputs = dict(zip([o.name for o in self.session.get_outputs()], self.session.run(None, self.feed(example)), strict=True))
        for value in outputs.values():
            if isinstance(value, list):  # skl2onnx's map from label to probability
                return self._checked({self._name(k): float(v) for k, v in value[0].items()})
        name = next((n for n in ("logits", "probabilities", "output_probability", "probs") if n in outputs), None)
        if name is None:
            raise BundleError(f"{self.graph} gives {sorted(outputs)}: name the class scores logits")
        row = np.asarray(outputs[name], np.float64).reshape(-1)
        if name == "logits":
            alone = len(row) == 1 or self.config.get("problem_type") == "multi_label_classification"
            row = 1 / (1 + np.exp(-row)) if alone else _softmax(row)
        labels = self.labels() or [f"LABEL_{i}" for i in range(len(row))]
        if len(labels) != len(row):
            raise BundleError(f"{self.graph} gives {len(row)} classes, config.json has {len(labels)} labels")
        return self._checked(dict(zip(labels, row.tolist(), strict=True)))

    def _name(self, key: Any) -> str:
        return (self.config.get("id2label") or {}).get(str(key), str(key))

    def _checked(self, scores: dict[str, float]) -> dict[str, float]:
        if not all(np.isfinite(v) and -1e-4 <= v <= 1 + 1e-4 for v in scores.values()):
            raise BundleError(f"{self.graph} gives {scores}: no probabilities")
        return scores

    def feed(self, example: Input) -> dict[str, np.ndarray]:
        """What the graph is given."""
        if self.strings:
            ((name, spec),) = self.inputs.items()
            return {name: np.array([[example.text]] if len(spec.shape) == 2 else [example.text], object)}
        tensors: dict[str, np.ndarray] = {}
        if self._tokenizer is not None:
            e = self._tokenizer.encode(example.text or "")
            tensors = {k: np.array([v], np.int64) for k, v in [("input_ids", e.ids), ("attention_mask", e.attention_mask)]}
            tensors["token_type_ids"] = np.array([e.type_ids], np.int64)
        if self.frames is not None and example.frames is not None:
            tensors["pixel_values"] = self.frames.tensor(example.frames)
        return {name: self._fit(name, tensors[_plain(name)]) for name in self.inputs}

    def _fit(self, name: str, value: np.ndarray) -> np.ndarray:
        """Pads to a length that the graph is fixed to, and takes its type."""
        spec = self.inputs[name]
        length = spec.shape[1] if value.ndim == 2 and len(spec.shape) == 2 else None
        if isinstance(length, int) and value.shape[1] < length:
            config = read_json(self.folder / "config.json")
            fill = config.get("pad_token_id") or 0 if _plain(name) == "input_ids" else 0
            value = np.pad(value, ((0, 0), (0, length - value.shape[1])), constant_values=fill)
        return value.astype(np.int32) if spec.type == "tensor(int32)" else value


class Frames:
    """A bundle's preprocessing, for frames that already have the size after the resize: then resizing changes nothing."""

    def __init__(self, folder: Path, config: dict[str, Any], shape: list[Any]) -> None:
        p = read_json(folder / "video_preprocessor_config.json") or read_json(folder / "preprocessor_config.json")
        if not p:
            raise BundleError(f"{folder} holds no preprocessor_config.json: save the image processor with the model")
        settings = read_settings(folder)
        self.sampling, self.rotation = (settings.get(name) or choices[0] for name, choices in CHOICES.items())
        self.resample = 2 if p.get("resample") is None else p["resample"]
        self.channels_first = len(shape) == 5 and shape[1] == 3
        fixed = shape[2 if self.channels_first else 1]
        self.count = int(config.get("num_frames") or (fixed if isinstance(fixed, int) else 16))
        crop = _size(p["crop_size"]) if p.get("do_center_crop", True) and p.get("crop_size") else None
        self.size = _size(p["size"]) if p.get("size") else crop or (224, 224)
        self.crop = crop or self.size
        if any(c > s for c, s in zip(self.crop, self.size, strict=True)):
            raise BundleError(f"{folder}: crop_size {self.crop} is larger than size {self.size}")
        self._values = _values(p)

    def tensor(self, frames: np.ndarray) -> np.ndarray:
        """(1, frames, 3, height, width), or (1, 3, frames, height, width), of the frames that the bundle chooses of these."""
        frames = frames[self.chosen(len(frames))]
        (h, w), (ch, cw) = self.size, self.crop
        top, left = (h - ch) // 2, (w - cw) // 2
        x = self._values[frames[:, top : top + ch, left : left + cw], np.arange(3)].transpose(0, 3, 1, 2)
        return np.ascontiguousarray((x.transpose(1, 0, 2, 3) if self.channels_first else x)[None])

    def chosen(self, n: int) -> np.ndarray:
        """The numbers of the frames that are taken of n, as the gateway chooses them."""
        if self.sampling == "hf":
            return np.arange(self.count) * n // self.count
        return np.linspace(0, n - 1, self.count).astype(np.int64)

    def made_up(self, seed: int, longer: bool = False) -> np.ndarray:
        """A clip of a few moving rectangles: small as PNG, and no two alike. A longer one has more frames than the model takes, each
        of another colour, so that its scores tell which were chosen.
        """
        rng = np.random.default_rng(seed)
        n = self.count + self.count // 2 + 1 if longer else self.count
        (h, w), out = self.size, np.empty((n, *self.size, 3), np.uint8)
        out[:] = rng.integers(0, 256, (n, 1, 1, 3) if longer else 3, np.uint8)
        for _ in range(4):
            colour, speed = rng.integers(0, 256, 3, np.uint8), rng.integers(-8, 9, 2)
            top, left = rng.integers(0, h), rng.integers(0, w)
            for i, frame in enumerate(out):
                y, x = (top + i * speed[0]) % h, (left + i * speed[1]) % w
                frame[y : y + h // 3, x : x + w // 3] = colour
        return out


def png(frame: np.ndarray) -> bytes:
    """An RGB frame as PNG."""
    h, w, _ = frame.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Each row begins with its filter, which is none.
    rows = np.concatenate([np.zeros((h, 1), np.uint8), frame.reshape(h, w * 3)], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def inputs(model: Model, texts: Sequence[str] | None, clips: int = 3) -> list[Input]:
    """The examples of a bundle: the texts given, else some of our own; made-up clips; both together for a fusion."""
    said = list(texts or TEXTS)
    if len(said) > MAX_EXAMPLES:
        raise ValueError(f"{len(said)} examples: the gateway checks at most {MAX_EXAMPLES}")
    for text in said:
        if model.frames is None and not text.strip():
            raise ValueError("an example's text is empty: the gateway judges none")
        if len(text.encode()) > MAX_TEXT:
            raise ValueError(f"an example's text has {len(text.encode())} bytes: the gateway reads at most {MAX_TEXT}")
    if model.frames is None:
        return [Input(text=t) for t in said]
    made = [model.frames.made_up(seed, longer=seed == clips - 1) for seed in range(clips)]
    if not model.takes_text:
        return [Input(frames=f) for f in made]
    return [Input(said[i % len(said)], f) for i, f in enumerate(made)]


def write(model: Model, examples: Sequence[Input], tolerance: float) -> int:
    """Writes golden.jsonl and returns how many examples it holds."""
    lines = [{"request": e.request(), "scores": model.scores(e), "tolerance": tolerance} for e in examples]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (model.folder / GOLDEN).write_text(text, encoding="utf-8")
    return len(lines)


def difference(a: Model, b: Model, examples: Sequence[Input]) -> float:
    """The largest difference between two bundles in any score."""
    pairs = ((a.scores(e), b.scores(e)) for e in examples)
    return max(abs(x[label] - y[label]) for x, y in pairs for label in x)


def _values(processor: dict[str, Any]) -> np.ndarray:
    """What the processor makes of each value that a pixel can have, by channel: (256, 3)."""
    x = np.arange(256, dtype=np.float32)[:, None]
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    if processor.get("do_normalize", True):
        mean, std = (np.array(processor.get(k, [d] * 3), np.float32) for k, d in (("image_mean", 0), ("image_std", 1)))
    if processor.get("do_rescale", True):
        kinds = (processor.get(k) or "" for k in ("video_processor_type", "image_processor_type", "feature_extractor_type"))
        # ViViT's processor shifts pixels to -1 to 1 before it normalizes them, unless told not to.
        offset = processor.get("offset", any(k.startswith("Vivit") for k in kinds))
        factor = np.float32(processor.get("rescale_factor", 1 / 127.5 if offset else 1 / 255))
        if offset:
            x = x * factor - np.float32(1)
        else:
            mean, std = mean / factor, std / factor
    return ((x - mean) / std).astype(np.float32)


def _plain(name: str) -> str:
    return name.removeprefix("text_").removeprefix("video_")


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    edge = value.get("shortest_edge")
    return (edge, edge) if edge else (value["height"], value["width"])


def _softmax(row: np.ndarray) -> np.ndarray:
    e = np.exp(row - row.max())
    return e / e.sum()
