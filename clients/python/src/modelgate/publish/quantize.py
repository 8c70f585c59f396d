"""Makes a bundle's weights int8."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from modelgate.publish import golden


def in_place(model: golden.Model, examples: Sequence[golden.Input]) -> float:
    """Quantizes the graph of a bundle dynamically and returns the largest difference that makes in any score."""
    before = [model.scores(e) for e in examples]
    # Beside the graph, because its weights may lie there.
    plain = model.graph.with_name(model.graph.name + ".plain")
    with tempfile.TemporaryDirectory(dir=model.folder.parent) as scratch:
        new = Path(scratch) / model.graph.name
        try:
            plain.write_bytes(_without_shapes(model.graph))
            quantize_dynamic(plain, new, weight_type=QuantType.QInt8)
        finally:
            plain.unlink(missing_ok=True)
        for old in (model.graph, model.graph.with_name(model.graph.name + ".data")):
            old.unlink(missing_ok=True)
        new.rename(model.graph)
    after = golden.Model(model.folder)
    return max(abs(b[label] - score) for b, e in zip(before, examples, strict=True) for label, score in after.scores(e).items())


def _without_shapes(graph: Path) -> bytes:
    """The graph without the shapes that its exporter noted between the nodes.

    Quantizing renames and turns weights and infers the shapes anew; where PyTorch's notes say otherwise it gives up.
    """
    model = onnx.load(graph, load_external_data=False)
    model.graph.ClearField("value_info")
    return model.SerializeToString()
