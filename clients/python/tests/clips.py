"""A small model of clips."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway import BUNDLES
from modelgate.publish import bundle


def clip_bundle(folder: Path, shape: list[object], with_text: bool = False) -> Path:
    """A graph whose logits are the means of two channels, so that its scores can be told without it. With a text, each logit gets
    the number of its tokens, times a hundredth for the second.
    """
    axis = 2 if shape[2] == 3 else 1
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "rest"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "two"], ["seen" if with_text else "logits"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([i for i in range(1, 5) if i != axis], np.int64), "rest"),
        numpy_helper.from_array(np.array([0, 2], np.int64), "two"),
    ]
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)]
    if with_text:
        names = ["text_input_ids", "text_attention_mask"]
        inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "length"]) for name in names]
        nodes += [
            helper.make_node("Mul", names, ["kept"]),
            helper.make_node("Sign", ["kept"], ["ones"]),
            helper.make_node("ReduceSum", ["ones", "one"], ["count"], keepdims=1),
            helper.make_node("Cast", ["count"], ["read"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["read", "weights"], ["said"]),
            helper.make_node("Add", ["seen", "said"], ["logits"]),
        ]
        constants += [
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([0, 0.01], np.float32), "weights"),
        ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2])]
    graph = helper.make_graph(nodes, "means", inputs, outputs, constants)
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "model.onnx")
    bundle.write_json(folder / "config.json", {"id2label": {"0": "safe", "1": "harmful"}, "num_frames": 4})
    sizes = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    numbers = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    bundle.write_json(folder / "preprocessor_config.json", {**sizes, **numbers, "image_processor_type": "VideoMAEImageProcessor"})
    if with_text:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((BUNDLES / "1" / name).read_bytes())
    return folder
