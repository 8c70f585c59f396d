"""Makes the scikit-learn fixtures of this folder: small pipelines as ONNX, and what Python says about texts.

Run it with the project's Python environment from the checkout's root: python inference/testdata/make.py
"""

import json
import pathlib

import numpy as np
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
    texts += ["good bad", "GOOD FILM", "nothing known here xyzzy", "!!!", "a", "7 days", "the the the the", "under_score film",
              "so good so bad so long " * 50, "tab\tand\nnewline good", "ends with space "]
    return texts


def save(folder, pipeline, texts, options):
    out = HERE / folder
    out.mkdir(exist_ok=True)
    options = {id(pipeline): options, id(pipeline.steps[0][1]): {"tokenexp": PATTERN, "locale": LOCALE}}
    model = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options=options, target_opset=OPSETS)
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


if __name__ == "__main__":
    main()
