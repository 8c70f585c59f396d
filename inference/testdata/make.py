"""Makes the fixtures of this folder: small graphs, and what Python says about texts.

The scikit-learn pipelines are asked directly. The transformer is run by ONNX Runtime in Python over the token ids that transformers
gave for the parity texts of inference/text (see tools/parity there), without padding, one text at a time.

Run it with the project's Python environment from the checkout's root: python inference/testdata/make.py
"""

import gzip
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

HERE = pathlib.Path(__file__).parent
OPSETS = {"": 17, "ai.onnx.ml": 3}
# RE2's \w is ASCII in ONNX Runtime, so the pattern says what it means on both sides.
PATTERN = "[a-zA-Z0-9_]+"
# The converter's own default, en_US, is missing on small machine images, and the graph then can't be loaded.
LOCALE = "C.UTF-8"

GOOD = ["good", "great", "lovely", "happy", "nice", "wonderful", "brilliant", "fun"]
BAD = ["bad", "awful", "horrible", "sad", "ugly", "terrible", "boring", "dull"]
THINGS = ["film", "day", "song", "meal", "trip", "book", "game", "talk"]
FRAMES = ["the {t} was {w}", "what a {w} {t}", "{w} {t} today", "I found this {t} quite {w}", "such a {w}, {w} {t}!"]


def corpus(rng, n):
    texts, good = [], []
    for _ in range(n):
        positive = bool(rng.integers(2))
        word = rng.choice(GOOD if positive else BAD)
        text = str(rng.choice(FRAMES)).format(t=rng.choice(THINGS), w=word)
        texts.append(text)
        good.append(positive)
    return texts, good


def questions(rng):
    texts, _ = corpus(rng, 40)
    texts += [
        "good bad",
        "GOOD FILM",
        "nothing known here xyzzy",
        "!!!",
        "a",
        "7 days",
        "the the the the",
        "under_score film",
        "so good so bad so long " * 50,
        "tab\tand\nnewline good",
        "ends with space ",
    ]
    return texts


def save(folder, pipeline, texts, options):
    out = HERE / folder
    out.mkdir(exist_ok=True)
    options = {id(pipeline): options, id(pipeline.steps[0][1]): {"tokenexp": PATTERN, "locale": LOCALE}}
    model = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options=options, target_opset=OPSETS)
    model.graph.name = folder  # the converter's is random
    (out / "model.onnx").write_bytes(model.SerializeToString())
    rows = pipeline.predict_proba(np.array(texts, dtype=object))
    expected = {"labels": [str(c) for c in pipeline.classes_], "texts": texts, "scores": rows.tolist()}
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{folder}: {len(texts)} texts, {(out / 'model.onnx').stat().st_size} bytes")


def main():
    rng = np.random.default_rng(7)
    texts, good = corpus(rng, 400)
    asked = questions(rng)
    words = Pipeline([("tfidf", TfidfVectorizer(token_pattern=PATTERN)), ("classifier", LogisticRegression())])
    words.fit(np.array(texts, dtype=object), np.where(good, "positive", "negative"))
    save("sklearn-zipmap", words, asked, {"zipmap": True})
    save("sklearn-tensor", words, asked, {"zipmap": False})
    (HERE / "sklearn-tensor" / "config.json").write_text('{"id2label": {"0": "negative", "1": "positive"}}\n')

    numbers = Pipeline([("tfidf", TfidfVectorizer(token_pattern=PATTERN)), ("classifier", LogisticRegression())])
    numbers.fit(np.array(texts, dtype=object), np.array([i % 3 if g else 3 for i, g in enumerate(good)]))
    save("sklearn-numbers", numbers, asked, {"zipmap": True})

    transformer(rng)


WIDTH, ROWS = 8, 2003  # of the embedding, which is shared by ids that are equal modulo ROWS, so that the file is small


def transformer_graph(rng):
    """A one-layer transformer: ids and mask to two logits. Every token looks at every other, and the mask matters."""

    def weight(name, *shape, scale=1.0):
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)

    def constant(name, value, kind=np.float32):
        return numpy_helper.from_array(np.array(value, dtype=kind), name)

    weights = [weight("table", ROWS, WIDTH), *(weight(n, WIDTH, WIDTH, scale=0.5) for n in ("wq", "wk", "wv", "wo", "wp"))]
    weights += [weight("up", WIDTH, 32, scale=0.5), weight("down", 32, WIDTH, scale=0.5), weight("head", WIDTH, 2, scale=0.7)]
    weights += [constant("scale", np.ones(WIDTH)), constant("bias", np.zeros(WIDTH)), constant("rows", ROWS, np.int64)]
    weights += [constant("speeds", [1 / (2 * i + 1) for i in range(WIDTH)]), constant("far", -1e4), constant("one", 1.0)]
    weights += [constant("root", WIDTH**0.5), constant("axis1", 1, np.int64), constant("axes1", [1], np.int64)]
    weights += [constant("axes2", [2], np.int64), constant("first", 0, np.int64)]
    node = helper.make_node
    nodes = [
        node("Mod", ["input_ids", "rows"], ["id"]),
        node("Gather", ["table", "id"], ["token"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("CumSum", ["mask", "axis1"], ["place"]),
        node("Unsqueeze", ["place", "axes2"], ["place3"]),
        node("Mul", ["place3", "speeds"], ["angle"]),
        node("Sin", ["angle"], ["position"]),
        node("Add", ["token", "position"], ["x"]),
        node("MatMul", ["x", "wq"], ["q"]),
        node("MatMul", ["x", "wk"], ["k"]),
        node("MatMul", ["x", "wv"], ["v"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["qk"]),
        node("Div", ["qk", "root"], ["qk_scaled"]),
        node("Sub", ["one", "mask"], ["absent"]),
        node("Mul", ["absent", "far"], ["away"]),
        node("Unsqueeze", ["away", "axes1"], ["away3"]),
        node("Add", ["qk_scaled", "away3"], ["masked"]),
        node("Softmax", ["masked"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["seen"]),
        node("MatMul", ["seen", "wo"], ["mixed"]),
        node("Add", ["x", "mixed"], ["sum1"]),
        node("LayerNormalization", ["sum1", "scale", "bias"], ["y"]),
        node("MatMul", ["y", "up"], ["wide"]),
        node("Relu", ["wide"], ["active"]),
        node("MatMul", ["active", "down"], ["narrow"]),
        node("Add", ["y", "narrow"], ["sum2"]),
        node("LayerNormalization", ["sum2", "scale", "bias"], ["z"]),
        node("Gather", ["z", "first"], ["start"], axis=1),
        node("MatMul", ["start", "wp"], ["pooled"]),
        node("Tanh", ["pooled"], ["bounded"]),
        node("MatMul", ["bounded", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "transformer", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def transformer(rng):
    out = HERE / "transformer"
    out.mkdir(exist_ok=True)
    onnx.save(transformer_graph(rng), out / "model.onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    parity = HERE.parent / "text" / "testdata" / "parity"
    for family in ("xlmr", "phobert", "bert", "roberta"):
        scores = []
        for row in lines(parity / family / "ids.jsonl.gz"):
            ids = np.array([row.get("bundle", row["none"])], dtype=np.int64)
            logits = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0].astype(np.float64)
            shares = np.exp(logits - logits.max())
            scores.append(round(float(shares[1] / shares.sum()), 7))
        with gzip.GzipFile(out / f"{family}.jsonl.gz", "wb", mtime=0) as f:
            f.write("".join(f"{s}\n" for s in scores).encode())
        print(f"{family}: {len(scores)} scores from {min(scores)} to {max(scores)}, deviation {np.std(scores):.3f}")


if __name__ == "__main__":
    main()
