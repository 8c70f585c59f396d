"""scikit-learn text pipelines, through skl2onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer

from modelgate.publish import bundle, golden

# The graph lower-cases by the rules of a locale that it names, and the gateway's machine must have it: this one every machine has.
_LOCALE = "C.UTF-8"
_OPSETS = {"": 17, "ai.onnx.ml": 3}
# scikit-learn's own pattern, "words of two or more letters", as far as ONNX Runtime's RE2 has it: its letters are ASCII.
_ASCII_WORDS = "[a-zA-Z0-9_][a-zA-Z0-9_]+"
_ADVICE = "train with token_pattern='[a-zA-Z0-9_]+', which means the same on both sides, or give check= texts as your callers send them"


def save(pipeline: Any, folder: Path, check: list[str] | None = None, tolerance: float = 1e-4) -> Path:
    """Writes a fitted pipeline that takes texts and gives class probabilities as a bundle, checked against the pipeline itself.

    The folder must not exist. Texts that the two judge differently, as skl2onnx's tokens are not always scikit-learn's, are an error.
    """
    folder.mkdir(parents=True)
    options: dict[int, dict[str, Any]] = {id(pipeline): {"zipmap": False}}
    for _, step in pipeline.steps:
        if isinstance(step, CountVectorizer):  # TfidfVectorizer is one
            pattern = _ASCII_WORDS if step.token_pattern == CountVectorizer().token_pattern else step.token_pattern
            options[id(step)] = {"tokenexp": pattern, "locale": _LOCALE}
    graph = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options=options, target_opset=_OPSETS)
    graph.graph.name = "text_classifier"  # the converter's is random
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    labels = [str(c) for c in pipeline.classes_]
    bundle.write_json(folder / "config.json", {"id2label": {str(i): label for i, label in enumerate(labels)}})
    texts = list(check or golden.TEXTS)
    try:
        model = golden.Model(folder)
    except bundle.BundleError as err:
        raise bundle.BundleError(f"{err}: {_ADVICE}") from err
    for text, want in zip(texts, pipeline.predict_proba(texts), strict=True):
        got = model.scores(golden.Input(text=text))
        worst = float(np.max(np.abs(np.array([got[label] for label in labels]) - want)))
        if not worst <= tolerance:
            raise bundle.BundleError(f"{text[:60]!r}: the graph's scores differ by {worst:.2g} from scikit-learn's: {_ADVICE}")
    return folder
