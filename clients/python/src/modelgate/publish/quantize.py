"""Makes a bundle's weights int8."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from modelgate.publish import golden


def in_place(model: golden.Model, examples: Sequence[golden.Input]) -> float:
    """Quantizes the graph of a bundle dynamically and returns the largest difference that makes in any score."""
    before = [model.scores(e) for e in examples]
    with tempfile.TemporaryDirectory(dir=model.folder.parent) as scratch:
        new = Path(scratch) / model.graph.name
        quantize_dynamic(model.graph, new, weight_type=QuantType.QInt8)
        for old in (model.graph, model.graph.with_name(model.graph.name + ".data")):
            old.unlink(missing_ok=True)
        new.rename(model.graph)
    after = golden.Model(model.folder)
    return max(abs(b[label] - score) for b, e in zip(before, examples, strict=True) for label, score in after.scores(e).items())
