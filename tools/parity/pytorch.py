"""Makes small classifiers of real architectures with random weights, exports them as one publishes them, and writes what PyTorch says.

    python tools/parity/pytorch.py           writes inference/testdata/pytorch anew (make references)
    python tools/parity/pytorch.py --check   makes the networks anew and compares their scores with those that are committed

The scores go the way of a training script: the checkpoint's own tokenizer and video processor, frames from PyAV, the network in PyTorch.
No file of modelgate's but the exporter takes part. It needs clients/python/requirements-torch.txt; the clips are those of inference/video.
"""

import argparse
import functools
import importlib.metadata
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import av
import numpy as np
import torch
import transformers as t
from modelgate.publish import bundle, export

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "inference" / "testdata" / "pytorch"
CLIPS = ROOT / "inference" / "video" / "testdata" / "parity"
TOKENIZER = ROOT / "inference" / "text" / "testdata" / "parity" / "xlmr"
# What two computers' arithmetic may differ by, far below what is promised.
SAME = 1e-5

LABELS = {0: "safe", 1: "harmful"}
LENGTH, EDGE, CROP = 48, 40, 32
# Random weights as small as usual hardly tell one input from another: these are larger.
NAMED = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}, "initializer_range": 0.25}
WORDS = 800

TEXTS = [
    "Video này hay quá, cảm ơn bạn đã chia sẻ 😂",
    "Đừng xem clip này, nội dung rất độc hại và nguy hiểm.",
    "Vie\u0323\u0302t Nam: da\u0302\u0301u ro\u031bi",  # combining marks
    "😭🔥🏳️‍🌈 🤣🤣",
    "\uff37\uff2f\uff37 ① \ufb01ne…  two  spaces\tand a tab\n",
    "<s> a </s> b <pad> c <mask> d",
    "This is the worst service I have ever had, and nobody even answered.",
    "a",
    "một hai ba bốn năm sáu bảy tám chín mười " * 20,  # cut off
    "!?" * 300,  # cut off
]
# A clip may have no words.
TEXTS_BESIDE = [*TEXTS, "", "   "]
ENCODED = [
    "moov-last.mp4",
    "faststart.mp4",
    "rotated.mp4",
    "edit-list.mp4",
    "variable-rate.mp4",
    "odd-420.mp4",
    "noise.mp4",
    "hevc.mp4",
    "vp9.webm",
    "life.mkv",
    "quicktime.mov",
]
# Fewer frames than the networks take: transformers' own sampling refuses it.
FEW = "few.mp4"


class Fusion(torch.nn.Module):
    """Both encoders, what they say side by side, and a head."""

    names = ("text_input_ids", "text_attention_mask", "video_pixel_values")

    def __init__(self, text: object, video: object) -> None:
        super().__init__()
        self.text, self.video = t.XLMRobertaModel(text, add_pooling_layer=False), t.VideoMAEModel(video)
        both = text.hidden_size + video.hidden_size
        self.head = torch.nn.Sequential(torch.nn.Linear(both, both), torch.nn.Tanh(), torch.nn.Linear(both, len(LABELS)))

    def fused(self, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        words = self.text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        frames = self.video(pixel_values=pixels).last_hidden_state.mean(1)
        return self.head(torch.cat([words, frames], dim=-1))

    def forward(self, text_input_ids: torch.Tensor, text_attention_mask: torch.Tensor, video_pixel_values: torch.Tensor) -> torch.Tensor:
        return self.fused(text_input_ids, text_attention_mask, video_pixel_values)


class PlainFusion(Fusion):
    """The same with transformers' own names."""

    names = ("input_ids", "attention_mask", "pixel_values")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.fused(input_ids, attention_mask, pixel_values)


def sizes(hidden: int, layers: int = 2) -> dict:
    return {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * hidden}


def tokenizer(folder: Path) -> None:
    """XLM-R's pieces, the most frequent ones and the characters of our texts. The real table of normalization alone has 240 KB."""
    said = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    characters = set("".join(TEXTS))
    pieces = said["model"]["vocab"]
    last = pieces.pop()
    kept = [p for i, p in enumerate(pieces) if i < WORDS or p[0] in characters]
    said["model"]["vocab"] = [*([piece, round(score, 4)] for piece, score in kept), last]
    said["added_tokens"][-1]["id"] = len(kept)
    said["normalizer"] = {"type": "NFKC"}
    (folder / "tokenizer.json").write_text(json.dumps(said, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    bundle.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH, **special, "mask_token": "<mask>"},
    )


def text_config(kind: type, words: int, hidden: int, **options: object) -> object:
    common = {"vocab_size": words, "max_position_embeddings": LENGTH + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return kind(**common, **options, **sizes(hidden), **NAMED)


def words_in(folder: Path) -> int:
    return len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])


def processor(folder: Path, kind: type, edge: int = EDGE, **options: object) -> None:
    """The processor's file as a training script leaves it."""
    kind(size={"shortest_edge": edge}, crop_size={"height": CROP, "width": CROP}, **options).save_pretrained(folder)


# A few bundles. Each writes a checkpoint into work and a bundle into out, and says whose scores count.


def text_bundle(network: type, config: Callable[[int], object], external_above: int, work: Path, out: Path) -> torch.nn.Module:
    work.mkdir()
    tokenizer(work)
    network(config(words_in(work))).eval().save_pretrained(work)
    export.checkpoint(work, out, "text", external_above)
    return t.AutoModelForSequenceClassification.from_pretrained(work)


def video_bundle(network: type, config: object, prepare: Callable[[Path], None], sampling: str, work: Path, out: Path) -> torch.nn.Module:
    prepare(work)
    network(config).eval().save_pretrained(work)
    export.checkpoint(work, out, "video")
    bundle.write_settings(out, video_sampling=sampling)
    return t.AutoModelForVideoClassification.from_pretrained(work)


def fusion_bundle(kind: type, hidden: int, work: Path, out: Path) -> torch.nn.Module:
    work.mkdir()
    tokenizer(work)
    processor(work, t.VideoMAEVideoProcessor, image_mean=[0.5, 0.45, 0.4], image_std=[0.3, 0.25, 0.2])
    network = kind(text_config(t.XLMRobertaConfig, words_in(work), hidden, type_vocab_size=1), videomae_config(hidden)).eval()
    t.XLMRobertaConfig().save_pretrained(work)  # the tokenizer is loaded by it
    export.fusion(network, work, work, LABELS, out, frames=network.video.config.num_frames)
    bundle.write_settings(out, video_sampling="linspace")
    return network


def videomae_config(hidden: int) -> object:
    return t.VideoMAEConfig(image_size=CROP, patch_size=8, num_frames=16, **sizes(hidden), **NAMED)


VIVIT = functools.partial(t.VivitConfig, image_size=CROP, num_frames=8, tubelet_size=[2, 8, 8])
TIMESFORMER = functools.partial(t.TimesformerConfig, image_size=CROP, patch_size=8, num_frames=8)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
GREY = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
BUNDLES: dict[str, Callable[[Path, Path], torch.nn.Module]] = {
    "xlm-roberta": functools.partial(
        text_bundle, t.XLMRobertaForSequenceClassification, lambda n: text_config(t.XLMRobertaConfig, n, 32, type_vocab_size=1), 1 << 20
    ),
    # token_type_ids, and weights beside the graph.
    "bert": functools.partial(
        text_bundle, t.BertForSequenceClassification, lambda n: text_config(t.BertConfig, n, 24, type_vocab_size=2), 10_000
    ),
    "videomae": functools.partial(
        video_bundle,
        t.VideoMAEForVideoClassification,
        videomae_config(32),
        # As training scripts have it: a processor of images for the frames of a clip.
        lambda folder: processor(folder, t.VideoMAEImageProcessor, **IMAGENET),
        "linspace",
    ),
    # Its processor rescales to -1 to 1 and then normalizes.
    "vivit": functools.partial(
        video_bundle,
        t.VivitForVideoClassification,
        VIVIT(**sizes(32), **NAMED),
        lambda folder: processor(folder, t.VivitVideoProcessor, edge=33),
        "linspace",
    ),
    "timesformer": functools.partial(
        video_bundle,
        t.TimesformerForVideoClassification,
        TIMESFORMER(**sizes(32), **NAMED),
        lambda folder: processor(folder, t.TimesformerVideoProcessor, **GREY, resample=3, do_sample_frames=True, num_frames=8),
        "hf",
    ),
    "fusion": functools.partial(fusion_bundle, Fusion, 24),
    "fusion-plain-names": functools.partial(fusion_bundle, PlainFusion, 16),
}


@functools.cache
def frames_of(name: str) -> np.ndarray:
    with av.open(str(CLIPS / name)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def pixels(work: Path, name: str, count: int) -> torch.Tensor:
    """A clip as the checkpoint's processor gives it to the network."""
    frames = frames_of(name)
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    if (work / "preprocessor_config.json").is_file():
        made = t.AutoImageProcessor.from_pretrained(work)(list(chosen), return_tensors="pt")["pixel_values"]
    else:
        reader = t.AutoVideoProcessor.from_pretrained(work)
        given = torch.from_numpy(frames if reader.do_sample_frames else chosen).permute(0, 3, 1, 2)
        made = reader(given, video_metadata=[{"total_num_frames": len(given), "fps": 25}], return_tensors="pt")["pixel_values"]
    assert made.shape == (1, count, 3, CROP, CROP), made.shape
    return made


def examples(name: str, network: torch.nn.Module) -> Iterator[dict[str, str]]:
    """The inputs of a bundle: texts, names of clips, or both in turn."""
    if isinstance(network, Fusion):
        clips = [*ENCODED, FEW]
        yield from ({"text": text, "clip": clips[i % len(clips)]} for i, text in enumerate(TEXTS_BESIDE))
        yield from ({"text": "", "clip": clip} for clip in clips[:3])
    elif hasattr(network.config, "num_frames"):
        yield from ({"clip": clip} for clip in [*ENCODED, *([FEW] if name != "timesformer" else [])])
    else:
        yield from ({"text": text} for text in TEXTS)


def scores(network: torch.nn.Module, work: Path, example: dict[str, str]) -> dict[str, float]:
    feed = {}
    if "text" in example:
        reader = t.AutoTokenizer.from_pretrained(work)
        feed |= reader(example["text"], truncation=True, return_tensors="pt", return_token_type_ids=False)
    if "clip" in example:
        config = network.video.config if isinstance(network, Fusion) else network.config
        feed["pixel_values"] = pixels(work, example["clip"], config.num_frames)
    if isinstance(network, Fusion):
        plain = PlainFusion.names
        feed = {name: feed[p] for p, name in zip(plain, network.names, strict=True)}
    with torch.no_grad():
        out = network(**feed)
    row = torch.softmax(getattr(out, "logits", out)[0].double(), -1).tolist()
    return {LABELS[i]: round(score, 7) for i, score in enumerate(row)}


def make(out: Path) -> dict:
    """Writes every bundle below out and returns what PyTorch says of the examples."""
    said = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed, (name, write) in enumerate(BUNDLES.items()):
            torch.manual_seed(seed)
            work = Path(scratch) / name
            network = write(work, out / name)
            said[name] = [{**e, "scores": scores(network, work, e)} for e in examples(name, network)]
    return said


def versions() -> dict[str, str]:
    names = ("torch", "torchvision", "transformers", "tokenizers", "av", "onnx", "onnxscript", "numpy")
    return {name: importlib.metadata.version(name) for name in names} | {"ffmpeg of av": av.ffmpeg_version_info}


def worst(want: dict, got: dict) -> float:
    """The largest difference in any score."""
    pairs = [(w, g) for name in want for w, g in zip(want[name], got[name], strict=True)]
    for w, g in pairs:
        assert w.get("text") == g.get("text") and w.get("clip") == g.get("clip"), (w, g)
    return max(abs(w["scores"][label] - g["scores"][label]) for w, g in pairs for label in w["scores"])


def check() -> float:
    """Compares the committed scores with those of networks that are made anew."""
    committed = json.loads((OUT / "expected.json").read_text(encoding="utf-8"))["bundles"]
    with tempfile.TemporaryDirectory() as scratch:
        made = make(Path(scratch))
    if list(committed) != list(made):
        raise SystemExit(f"parity: the committed bundles are {list(committed)}, now they are {list(made)}: run make references")
    return worst(committed, made)


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare the committed scores")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.check:
        difference = check()
        print(f"parity: PyTorch's scores are within {difference:.1g} of the committed ones")
        raise SystemExit(0 if difference <= SAME else 1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    expected = {"made_with": versions(), "bundles": make(OUT)}
    bundle.write_json(OUT / "expected.json", expected)
    for name, rows in expected["bundles"].items():
        size = sum(f.stat().st_size for f in (OUT / name).iterdir())
        spread = np.ptp([row["scores"]["harmful"] for row in rows])
        print(f"parity: {name}: {len(rows)} examples, scores spread over {spread:.2f}, {size // 1024} KB")


if __name__ == "__main__":
    main()
