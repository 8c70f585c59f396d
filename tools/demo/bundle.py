"""Writes classifiers as bundles, the folders that the gateway serves, and measures what was written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnxruntime
from tokenizers import Tokenizer

MAX_LENGTH = 128
THRESHOLD = 0.5
LABELS = {0: "not_negative", 1: "negative"}
POSITIVE = 1


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_graph(folder: Path, model: onnx.ModelProto) -> None:
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


def write(folder: Path, tokenizer: Tokenizer, weights: np.ndarray, bias: float) -> None:
    """Writes everything of a text classifier but the metrics and the manifest, named and laid out as Hugging Face does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(folder, graphs.classifier("linear_text_classifier", graphs.of_text(weights, bias), "z"))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": MAX_LENGTH,
            "padding_side": "right",
            "truncation_side": "right",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
        },
    )
    write_json(
        folder / "config.json",
        {
            "architectures": ["LinearForSequenceClassification"],
            "model_type": "linear",
            "problem_type": "single_label_classification",
            "id2label": {str(i): label for i, label in LABELS.items()},
            "label2id": {label: i for i, label in LABELS.items()},
            "vocab_size": len(weights),
            "max_position_embeddings": MAX_LENGTH,
            "pad_token_id": tokenizer.token_to_id("[PAD]"),
        },
    )
    (folder / "modelgate.yaml").write_text(
        "# What Hugging Face's files have no place for.\n"
        f"positive_label: {LABELS[POSITIVE]}\nthreshold: {THRESHOLD}\nmax_length: {MAX_LENGTH}\n",
        encoding="utf-8",
    )


def probabilities(folder: Path, texts: list[str] | None = None, clips: np.ndarray | None = None, batch: int = 256) -> np.ndarray:
    """Each input's probability of the positive label, from the written files alone, as a server would compute it.

    clips are the chosen frames in bytes, (clips, frames, height, width, 3).
    """
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    encode = encoder(folder) if texts is not None else None
    answers = []
    for start in range(0, len(clips if texts is None else texts), batch):
        rows = slice(start, start + batch)
        feed = encode(texts[rows]) if encode else {}
        if clips is not None:
            feed["pixel_values"] = pixels(clips[rows])
        (logits,) = session.run(["logits"], {name: feed[name.removeprefix("text_").removeprefix("video_")] for name in names})
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers.append(exps[:, POSITIVE] / exps.sum(axis=1))
    return np.concatenate(answers)


def encoder(folder: Path) -> Callable[[list[str]], dict[str, np.ndarray]]:
    """What makes texts the tensors of a graph."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))

    def encode(texts: list[str]) -> dict[str, np.ndarray]:
        encodings = tokenizer.encode_batch_fast(texts)
        return {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        }

    return encode


def pixels(clips: np.ndarray) -> np.ndarray:
    """What the processor's file says: from bytes to numbers from 0 to 1, (clips, frames, 3, height, width)."""
    return clips.transpose(0, 1, 4, 2, 3).astype(np.float32) / np.float32(255)


def measure(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How good answers are."""
    hits = int((said & true).sum())
    precision = hits / max(1, int(said.sum()))
    recall = hits / max(1, int(true.sum()))
    return {
        "eval_f1": 2 * precision * recall / max(1e-12, precision + recall),
        "eval_precision": precision,
        "eval_recall": recall,
        "eval_accuracy": float((said == true).mean()),
    }


def evaluate(
    folder: Path, labels: list[int] | np.ndarray, texts: list[str] | None = None, clips: np.ndarray | None = None
) -> dict[str, float]:
    """Scores held-out inputs with the bundle's own files and writes metrics.json."""
    metrics = measure(probabilities(folder, texts, clips) >= THRESHOLD, np.array(labels, bool))
    write_json(folder / "metrics.json", {name: round(value, 6) for name, value in metrics.items()})
    return metrics


def seal(folder: Path) -> None:
    """Writes manifest.json: the size and sha256 of every other file, so that whoever fetches the bundle can check it."""
    files = [
        {"path": p.name, "size": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json"
    ]
    write_json(folder / "manifest.json", {"files": files})
