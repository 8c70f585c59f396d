"""The demo's three models as ONNX graphs: of a text, of a clip, of both."""

from dataclasses import dataclass, field

import frames
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CELLS = 4  # a frame is looked at in so many rows and columns
# Two values a cell: how bright it is, and how much redder than it is green and blue.
SEEN = np.array([[0.299, 0.587, 0.114], [1, -0.5, -0.5]], np.float32)
STEPS = frames.COUNT - 1
FEATURES = len(SEEN) * (STEPS + STEPS + STEPS - 1)


@dataclass
class Part:
    """Some nodes of a graph with what they need."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __add__(self, other: "Part") -> "Part":
        return Part(self.nodes + other.nodes, self.inputs + other.inputs, self.constants + other.constants)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        # TopK gives where it found what it found, too; nobody wants to know.
        self.nodes.append(helper.make_node(kind, inputs, [output, f"{output}_at"] if kind == "TopK" else [output], **attributes))

    def constant(self, name: str, value: object, kind: type = np.float32) -> None:
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))


def of_text(weights: np.ndarray, bias: float, prefix: str = "") -> Part:
    """z of a text, a linear model over tokens: the sum of the weights of a row's tokens, and a bias."""
    p = Part()
    for name in (f"{prefix}input_ids", f"{prefix}attention_mask"):
        p.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]))
    p.node("Gather", ["token_weights", f"{prefix}input_ids"], "token_scores")
    p.node("Cast", [f"{prefix}attention_mask"], "mask", to=TensorProto.FLOAT)
    p.node("Mul", ["token_scores", "mask"], "masked_scores")
    p.node("ReduceSum", ["masked_scores", "sequence_axis"], "sum", keepdims=1)
    p.node("Add", ["sum", "bias"], "z")
    p.constant("token_weights", weights)
    p.constant("sequence_axis", [1], np.int64)
    p.constant("bias", [bias])
    return p


def of_clip(prefix: str = "") -> Part:
    """The features of a clip: how much it changes from frame to frame, and how often that turns round, the largest first.

    The order in time is left out: what counts is how often a picture jumps. A flash is a jump up and then down, a cut is one jump.
    """
    p, side, kinds = Part(), frames.SIDE // CELLS, len(SEEN)
    shape = ["batch", frames.COUNT, 3, frames.SIDE, frames.SIDE]
    p.inputs.append(helper.make_tensor_value_info(f"{prefix}pixel_values", TensorProto.FLOAT, shape))
    p.node("Reshape", [f"{prefix}pixel_values", "as_images"], "images")
    p.node("Conv", ["images", "means"], "patches", strides=[side, side])
    p.node("Reshape", ["patches", "as_clips"], "cells")
    p.node("Slice", ["cells", "one", "end", "one"], "later")
    p.node("Slice", ["cells", "zero", "minus_one", "one"], "earlier")
    p.node("Sub", ["later", "earlier"], "steps")
    p.node("ReduceMean", ["steps"], "whole_steps", axes=[3], keepdims=0)
    p.node("Abs", ["whole_steps"], "whole_jumps")
    p.node("Abs", ["steps"], "jumps")
    p.node("ReduceMean", ["jumps"], "mean_jumps", axes=[3], keepdims=0)
    p.node("Slice", ["steps", "one", "end", "one"], "next_steps")
    p.node("Slice", ["steps", "zero", "minus_one", "one"], "previous_steps")
    p.node("Mul", ["next_steps", "previous_steps"], "products")
    p.node("Neg", ["products"], "opposed")
    p.node("Relu", ["opposed"], "squared_turns")
    p.node("Sqrt", ["squared_turns"], "turns")
    p.node("ReduceMean", ["turns"], "mean_turns", axes=[3], keepdims=0)
    for name, k in (("whole_jumps", "all_steps"), ("mean_jumps", "all_steps"), ("mean_turns", "all_turns")):
        p.node("TopK", [name, k], f"sorted_{name}", axis=1)
    p.node("Concat", ["sorted_whole_jumps", "sorted_mean_jumps", "sorted_mean_turns"], "seen", axis=1)
    p.node("Reshape", ["seen", "as_rows"], "features")
    p.constant("as_images", [-1, 3, frames.SIDE, frames.SIDE], np.int64)
    p.constant("as_clips", [-1, frames.COUNT, kinds, CELLS * CELLS], np.int64)
    p.constant("as_rows", [-1, FEATURES], np.int64)
    p.constant("means", np.broadcast_to(SEEN[:, :, None, None] / side**2, (kinds, 3, side, side)))
    for name, value in (("zero", 0), ("one", 1), ("minus_one", -1), ("end", 1 << 30), ("all_steps", STEPS), ("all_turns", STEPS - 1)):
        p.constant(name, [value], np.int64)
    return p


def linear(weights: np.ndarray, bias: float) -> Part:
    """v of a clip's features."""
    p = Part()
    p.node("MatMul", ["features", "feature_weights"], "weighted")
    p.node("Add", ["weighted", "clip_bias"], "v")
    p.constant("feature_weights", weights[:, None])
    p.constant("clip_bias", [bias])
    return p


def together(layers: list[tuple[np.ndarray, np.ndarray]]) -> Part:
    """y of both, a small network over z and v: weights and biases of its two layers."""
    p, ((w1, b1), (w2, b2)) = Part(), layers
    p.node("Concat", ["z", "v"], "pair", axis=1)
    p.node("Gemm", ["pair", "w1", "b1"], "before")
    p.node("Tanh", ["before"], "hidden")
    p.node("Gemm", ["hidden", "w2", "b2"], "y")
    for name, value in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)):
        p.constant(name, value)
    return p


def classifier(name: str, parts: Part, score: str) -> onnx.ModelProto:
    """The logits are -score/2 and score/2, so that the softmax of the second equals the score's sigmoid, a regression's probability."""
    head = Part()
    head.node("Mul", [score, "halves"], "logits")
    head.constant("halves", [-0.5, 0.5])
    return model(name, parts + head, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]))


def model(name: str, parts: Part, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    made = helper.make_model(
        helper.make_graph(parts.nodes, name, parts.inputs, [output], parts.constants),
        # Old enough for every runtime that the gateway may be given.
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="modelgate-demo",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def features() -> onnx.ModelProto:
    """A graph that gives a clip's features, for training: what is trained on is what is served."""
    return model("clip_features", of_clip(), helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES]))
