"""Writes a text classifier as a bundle, the folder that the gateway serves, and measures what was written."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from corpus import Split
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

MAX_LENGTH = 128
THRESHOLD = 0.5
LABELS = {0: "not_negative", 1: "negative"}
POSITIVE = 1


def graph(weights: np.ndarray, bias: float) -> onnx.ModelProto:
    """A linear model over tokens: the sum of the weights of a row's tokens, and a bias, as two logits.

    The logits are -z/2 and z/2, so that the softmax of the second equals the sigmoid of z, the logistic regression's probability.
    """
    nodes = [
        helper.make_node("Gather", ["token_weights", "input_ids"], ["token_scores"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["token_scores", "mask"], ["masked_scores"]),
        helper.make_node("ReduceSum", ["masked_scores", "sequence_axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "bias"], ["z"]),
        helper.make_node("Mul", ["z", "halves"], ["logits"]),
    ]
    initializers = [
        numpy_helper.from_array(weights.astype(np.float32), "token_weights"),
        numpy_helper.from_array(np.array([1], np.int64), "sequence_axis"),
        numpy_helper.from_array(np.array([bias], np.float32), "bias"),
        numpy_helper.from_array(np.array([-0.5, 0.5], np.float32), "halves"),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "linear_text_classifier",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
                helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
            initializers,
        ),
        # Old enough for every runtime that the gateway may be given.
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="modelgate-demo",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write(folder: Path, tokenizer: Tokenizer, weights: np.ndarray, bias: float) -> None:
    """Writes everything but the metrics and the manifest, named and laid out as Hugging Face does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph(weights, bias).SerializeToString(deterministic=True))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_json(
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
    _write_json(
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


def probabilities(folder: Path, texts: list[str], batch: int = 512) -> np.ndarray:
    """Each text's probability of the positive label, from the written files alone, as a server would compute it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    answers = []
    for start in range(0, len(texts), batch):
        encodings = tokenizer.encode_batch_fast(texts[start : start + batch])
        feed = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        }
        (logits,) = session.run(["logits"], feed)
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers.append(exps[:, POSITIVE] / exps.sum(axis=1))
    return np.concatenate(answers)


def evaluate(folder: Path, held_out: Split) -> dict[str, float]:
    """Scores the held-out rows with the bundle's own files and writes metrics.json."""
    said = probabilities(folder, held_out.texts) >= THRESHOLD
    true = np.array(held_out.labels, bool)
    hits = int((said & true).sum())
    precision = hits / max(1, int(said.sum()))
    recall = hits / max(1, int(true.sum()))
    metrics = {
        "eval_f1": 2 * precision * recall / max(1e-12, precision + recall),
        "eval_precision": precision,
        "eval_recall": recall,
        "eval_accuracy": float((said == true).mean()),
    }
    _write_json(folder / "metrics.json", {name: round(value, 6) for name, value in metrics.items()})
    return metrics


def seal(folder: Path) -> None:
    """Writes manifest.json: the size and sha256 of every other file, so that whoever fetches the bundle can check it."""
    files = [
        {"path": p.name, "size": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json"
    ]
    _write_json(folder / "manifest.json", {"files": files})
