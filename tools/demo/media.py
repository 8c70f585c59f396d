"""Trains the demo's models of clips, and of texts with clips, and writes them as bundles. Seconds, once the clips are there."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import bundle
import clips
import corpus
import frames
import graphs
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

# How many training clips each version gets.
CLIPS = {"few": 40, "all": clips.TRAINING}
PAIRS, HELD_OUT_PAIRS = 4000, 2000
C = 0.3
# As the gateway says it for models that are not fused.
LATE = (0.3, 0.7)


@dataclass(frozen=True)
class Clips:
    """Clips as a model gets them, with their labels: 1 flashes."""

    frames: np.ndarray
    labels: np.ndarray


def load() -> tuple[Clips, Clips]:
    """The training clips and the held-out ones."""
    every, read = clips.everything(), clips.load()
    labels = np.array([clip.flashing for clip in every], int)
    held_out = np.array([clip.held_out for clip in every])
    return Clips(read[~held_out], labels[~held_out]), Clips(read[held_out], labels[held_out])


def _write(folder: Path, graph: onnx.ModelProto, labels: tuple[str, str], text: Path | None = None) -> None:
    """Everything but the metrics and the manifest; what a text needs comes from a text's bundle."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bundle.write_graph(folder, graph)
    bundle.write_json(
        folder / "config.json",
        {
            "problem_type": "single_label_classification",
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
            "num_frames": frames.COUNT,
        },
    )
    bundle.write_json(
        folder / "preprocessor_config.json",
        {
            "do_resize": True,
            "size": {"height": frames.SIDE, "width": frames.SIDE},
            "resample": 2,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": False,
        },
    )
    settings = f"positive_label: {labels[bundle.POSITIVE]}\nthreshold: {bundle.THRESHOLD}\n"
    if text is not None:
        settings += f"max_length: {bundle.MAX_LENGTH}\n"
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(text / name, folder / name)
    (folder / "modelgate.yaml").write_text(settings, encoding="utf-8")


def train_video(folder: Path, training: Clips, held_out: Clips) -> dict[str, float]:
    """Writes the bundle of a classifier of clips, and returns the metrics on the held-out clips."""
    session = onnxruntime.InferenceSession(graphs.features().SerializeToString(), providers=["CPUExecutionProvider"])
    (seen,) = session.run(["features"], {"pixel_values": bundle.pixels(training.frames)})
    mean, deviation = seen.mean(0), seen.std(0) + 1e-6
    with threadpool_limits(1):
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000).fit((seen - mean) / deviation, training.labels)
    weights = model.coef_[0] / deviation
    bias = float(model.intercept_[0] - weights @ mean)
    # Four decimals are plenty, and make the files the same where the last bits of the arithmetic differ.
    head = graphs.linear(np.round(weights, 4), round(bias, 4))
    _write(folder, graphs.classifier("flash_classifier", graphs.of_clip() + head, "v"), ("calm", "flashing"))
    return bundle.evaluate(folder, held_out.labels, clips=held_out.frames)


@dataclass(frozen=True)
class Pairs:
    """Texts with clips. 1 is harmful: the text is negative, or the clip flashes, or both."""

    texts: list[str]
    clips: Clips
    which: np.ndarray  # of the clips, for each text
    labels: np.ndarray


def pair(texts: corpus.Split, clips: Clips, n: int, seed: int) -> Pairs:
    """Pairs of random texts and random clips. One clip in four flashes: about half of the pairs are harmful then."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(texts.texts), n)
    calm, flashing = (rng.choice(np.flatnonzero(clips.labels == label), n) for label in (0, 1))
    which = np.where(rng.random(n) < 0.25, flashing, calm)
    labels = np.array(texts.labels)[rows] | clips.labels[which]
    return Pairs([texts.texts[i] for i in rows], clips, which, labels)


def parts(text: Path, video: Path, pairs: Pairs) -> np.ndarray:
    """What the two single models say of each pair, (pairs, 2): probabilities."""
    return np.stack([bundle.probabilities(text, pairs.texts), scores(video, pairs.clips)[pairs.which]], axis=1)


def compare(text: Path, video: Path, pairs: Pairs) -> dict[str, float]:
    """The F1 of what there is without a fusion model."""
    said = parts(text, video, pairs)
    ways = {"the text alone": said[:, 0], "the clip alone": said[:, 1], "0.3 text + 0.7 clip": said @ LATE}
    return {name: bundle.measure(score >= bundle.THRESHOLD, pairs.labels.astype(bool))["eval_f1"] for name, score in ways.items()}


def train_fusion(folder: Path, text: Path, video: Path, training: Pairs, held_out: Pairs) -> dict[str, float]:
    """Puts the graphs of the two single models into one with a small network on top, trained on pairs."""
    said = np.clip(parts(text, video, training).astype(np.float64), 1e-7, 1 - 1e-7)
    z = np.log(said / (1 - said))
    mean, deviation = z.mean(0), z.std(0)
    network = MLPClassifier((8,), activation="tanh", solver="lbfgs", alpha=0.1, max_iter=500, random_state=0)
    with threadpool_limits(1):
        network.fit((z - mean) / deviation, training.labels)
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    w1 = w1 / deviation[:, None]
    head = graphs.together([(np.round(w1, 4), np.round(b1 - mean @ w1, 4)), (np.round(w2, 4), np.round(b2, 4))])
    words = graphs.of_text(*_constants(text, "token_weights", "bias"), prefix="text_")
    seen = graphs.of_clip("video_") + graphs.linear(*_constants(video, "feature_weights", "clip_bias"))
    _write(folder, graphs.classifier("text_and_clip_classifier", words + seen + head, "y"), ("harmless", "harmful"), text)
    return bundle.evaluate(folder, held_out.labels, held_out.texts, held_out.clips.frames[held_out.which])


def scores(folder: Path, of: Clips) -> np.ndarray:
    """What a video bundle says of each clip."""
    return bundle.probabilities(folder, clips=of.frames)


def _constants(folder: Path, weights: str, bias: str) -> tuple[np.ndarray, float]:
    """What a bundle's graph was trained to."""
    constants = {c.name: numpy_helper.to_array(c) for c in onnx.load(folder / "model.onnx").graph.initializer}
    return constants[weights].reshape(-1), float(constants[bias][0])
