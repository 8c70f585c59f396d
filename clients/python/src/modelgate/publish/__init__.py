"""Publishes models in MLflow so that what the gateway serves is exactly what was trained.

    from modelgate import publish
    publish.log_text_model(model_path="best_checkpoint", metrics={"eval_f1": 0.85}, promote=True)

model_path is a folder with a ready ONNX bundle (the extra registry) or a Hugging Face checkpoint, which is exported
and checked against PyTorch (the extra publish).
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgate.publish import bundle
from modelgate.publish.bundle import BundleError
from modelgate.publish.versions import CONTRACT_TAG, DIGEST_TAG, METRICS, ModelVersion, f1_of

if TYPE_CHECKING:
    from modelgate.publish import golden
    from modelgate.publish.registry import Registry

__all__ = [
    "BundleError",
    "Comparison",
    "ModelVersion",
    "Published",
    "compare_and_update_model",
    "download_model",
    "get_latest_model_version",
    "log_fusion_model",
    "log_model",
    "log_text_model",
    "log_video_model",
]

# The names that the gateway watches, and the F1 that a version must exceed.
MODELS = {"text": "text_classification_model", "video": "video_classification_model", "fusion": "fusion_multimodal_model"}
THRESHOLDS = {"text": 0.75, "video": 0.70, "fusion": 0.80}
TOLERANCE = 1e-4
# Integer arithmetic differs between processors.
TOLERANCE_INT8 = 0.02
# The gateway takes no golden answer with a larger one: it would prove nothing.
MAX_TOLERANCE = 0.1
# Bytes of a tag that every MLflow takes.
MAX_TAG = 5000


# A folder, or one or several objects that have save_pretrained.
Source = str | os.PathLike | object


@dataclass(frozen=True)
class Published:
    """What was published."""

    model_name: str
    version: str
    run_id: str
    digest: str  # as the gateway shows it
    f1: float
    promoted: str  # "alias:production", "stage:Production"; empty if it isn't
    reason: str  # why it was promoted or not


@dataclass(frozen=True)
class Comparison:
    """What compare_and_update_model found and did."""

    candidate: ModelVersion
    current: ModelVersion | None
    promoted: str  # "alias:production", "stage:Production"; empty if the current version stays
    reason: str


def log_text_model(model_path: Source, metrics: Mapping[str, float], params: Mapping[str, Any] | None = None,
                   model_name: str | None = None, **options: Any) -> Published:  # fmt: skip
    """log_model for a text classifier."""
    return log_model(model_path, metrics, params, model_name, kind="text", **options)


def log_video_model(model_path: Source, metrics: Mapping[str, float], params: Mapping[str, Any] | None = None,
                    model_name: str | None = None, **options: Any) -> Published:  # fmt: skip
    """log_model for a video classifier."""
    return log_model(model_path, metrics, params, model_name, kind="video", **options)


def log_fusion_model(model_path: Source, metrics: Mapping[str, float], params: Mapping[str, Any] | None = None,
                     model_name: str | None = None, **options: Any) -> Published:  # fmt: skip
    """log_model for a classifier of text and video together."""
    return log_model(model_path, metrics, params, model_name, kind="fusion", **options)


def log_model(
    model_path: Source,
    metrics: Mapping[str, float],
    params: Mapping[str, Any] | None = None,
    model_name: str | None = None,
    *,
    kind: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    tags: Mapping[str, str] | None = None,
    promote: bool = False,
    f1_threshold: float | None = None,
    pointer: str = "auto",
    positive_label: str | None = None,
    threshold: float | None = None,
    max_length: int | None = None,
    video_sampling: str | None = None,
    video_rotation: str | None = None,
    examples: Sequence[str] | None = None,
    tolerance: float | None = None,
    quantize: bool = False,
) -> Published:
    """Publishes a bundle or a checkpoint: a run with metrics, params and files, and a version of the model that the gateway watches.

    model_path is the folder of either, or what a training script has at hand: a model with its tokenizer or processor, as a tuple of
    objects that have save_pretrained. metrics must hold the F1, as eval_f1 or f1.

    model_path is not changed; a copy of it gets modelgate.yaml (positive_label, threshold, max_length, video_sampling,
    video_rotation), golden.jsonl (examples: texts to take in place of our own), contract.json and manifest.json. The version's tags
    get the digest and the contract. The gateway serves the version only if all of them hold where it runs: a score may be off by
    tolerance, by default 1e-4, and 0.02 with quantize. promote points the alias "production" to it (the stage "Production" on
    servers without aliases) if its F1 exceeds f1_threshold. quantize makes the weights int8 and records the difference that makes.
    """
    f1 = f1_of(metrics)
    if f1 is None:
        raise ValueError(f"metrics holds {sorted(metrics)}: the F1 is needed, from 0 to 1, as {' or '.join(METRICS)}")
    registry = _registry(tracking_uri)
    with tempfile.TemporaryDirectory(prefix="modelgate-") as scratch:
        folder = Path(scratch) / "bundle"
        prepared = _prepare(_folder_of(model_path, Path(scratch)), folder, kind, examples, tolerance, quantize,
                            {"positive_label": positive_label, "threshold": threshold, "max_length": max_length,
                             "video_sampling": video_sampling, "video_rotation": video_rotation})  # fmt: skip
        digest = bundle.seal(folder)
        name = model_name or MODELS[prepared.kind]
        params = {**(params or {}), **prepared.params}
        run = registry.log(experiment or f"tiktok_safety_{prepared.kind}", folder, metrics, params, run_name)
        own, contract = {DIGEST_TAG: digest}, json.dumps(prepared.contract, ensure_ascii=False)
        if len(contract.encode()) <= MAX_TAG:  # it is in the bundle too
            own[CONTRACT_TAG] = contract
        version = registry.register(name, run, {**(tags or {}), **own})
    set_to, reason = "", "promotion was not asked for"
    if promote:
        limit = _threshold(prepared.kind, f1_threshold)
        reason = f"F1 {f1:.4f} {'exceeds' if f1 > limit else 'does not exceed'} the threshold {limit:g}"
        set_to = registry.promote(name, version, pointer) if f1 > limit else ""
    return Published(name, version, run.info.run_id, digest, f1, set_to, reason)


def _part(name: str) -> Any:
    """A module of this package that takes what only extras bring; --help is to work without."""
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as err:
        raise ImportError(bundle.needs("registry", f"publishing takes {err.name}, of")) from err


def _registry(tracking_uri: str | None) -> Registry:
    return _part("registry").Registry(tracking_uri)


def _folder_of(source: Source, scratch: Path) -> Path:
    """The folder of a checkpoint or a bundle; objects are saved as one."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    parts = source if isinstance(source, (tuple, list)) else (source,)
    for part in parts:
        if not callable(getattr(part, "save_pretrained", None)):
            raise TypeError(
                f"model_path holds a {type(part).__name__}: it is a folder, or (model, tokenizer or processor) with save_pretrained"
            )
    folder = scratch / "checkpoint"
    folder.mkdir()
    for part in parts:
        part.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class _Prepared:
    kind: str
    params: dict[str, Any]
    contract: dict[str, Any]


def _prepare(source: Path, folder: Path, kind: str | None, texts: Sequence[str] | None, tolerance: float | None, quantize: bool,
             settings: dict[str, Any]) -> _Prepared:  # fmt: skip
    """Makes a complete bundle, but for its manifest, of a bundle or a checkpoint."""
    if tolerance is not None and not 0 < tolerance <= MAX_TOLERANCE:
        raise ValueError(f"tolerance is {tolerance}: it is more than 0 and at most {MAX_TOLERANCE}")
    for name, choices in bundle.CHOICES.items():
        if settings[name] not in (None, *choices):
            raise ValueError(f"{name} is {settings[name]!r}: it is {' or '.join(choices)}")
    params: dict[str, Any] = {}
    if source.is_dir() and bundle.graph_of(source) is None:
        params |= _part("export").checkpoint(source, folder, kind)
    else:
        bundle.copy(source, folder)
    bundle.write_settings(folder, **settings)
    golden = _part("golden")
    model = golden.Model(folder)
    if kind is not None and model.kind != kind:
        raise BundleError(f"{source} is a {model.kind} model, not a {kind} model")
    if not model.takes_video and (name := next((name for name in bundle.CHOICES if settings[name]), None)):
        raise BundleError(f"{name} is given, and {source} is a text model: it is for models of clips")
    examples = golden.inputs(model, texts)
    if quantize:
        params["int8_difference"] = _part("quantize").in_place(model, examples)
        model = golden.Model(folder)
    tolerance = tolerance or (TOLERANCE_INT8 if quantize else TOLERANCE)
    params["golden_examples"] = golden.write(model, examples, tolerance)
    contract = _contract(model, examples[0])
    bundle.write_json(folder / bundle.CONTRACT, contract)
    return _Prepared(model.kind, params, contract)


def _contract(model: golden.Model, example: golden.Input) -> dict[str, Any]:
    """What a caller or a fusion may rely on, and the gateway checks."""
    labels = list(model.scores(example))  # in the graph's order
    positive = model.settings.get("positive_label", "")
    if positive and positive not in labels:
        raise BundleError(f"positive_label is {positive!r}, the labels are {labels}")
    out: dict[str, Any] = {
        "kind": model.kind,
        "labels": labels,
        "positive_label": positive,
        "threshold": float(model.settings.get("threshold", 0.5)),
        "inputs": {name: [i.type, [d if isinstance(d, int) else None for d in i.shape]] for name, i in model.inputs.items()},
    }
    if model.takes_text and not model.strings:
        out["max_length"] = model.max_length
    if model.frames is not None:
        out["frames"] = model.frames.count
        out["crop"] = list(model.frames.crop)
        out |= {"video_sampling": model.frames.sampling, "video_rotation": model.frames.rotation, "resample": model.frames.resample}
    return out


def _threshold(kind: str | None, given: float | None) -> float:
    if given is not None:
        return given
    if kind is None:
        raise ValueError("f1_threshold is needed: the name is none of the three that have one")
    return float(os.environ.get(f"MLFLOW_{kind.upper()}_F1_THRESHOLD") or THRESHOLDS[kind])


def _name(kind_or_name: str) -> str:
    return MODELS.get(kind_or_name, kind_or_name)


def _kind(name: str) -> str | None:
    return next((kind for kind, known in MODELS.items() if known == name), None)


def get_latest_model_version(model: str = "text", *, promoted: bool = True, tracking_uri: str | None = None) -> ModelVersion | None:
    """The version that the alias, else the stage, points to; with promoted=False the one with the highest number. None if none is.

    model is "text", "video", "fusion" or a registered name.
    """
    registry = _registry(tracking_uri)
    return registry.promoted(_name(model)) if promoted else registry.newest(_name(model))


def compare_and_update_model(
    model: str = "text",
    version: str | int | None = None,
    *,
    f1_threshold: float | None = None,
    pointer: str = "auto",
    tracking_uri: str | None = None,
) -> Comparison:
    """Promotes a version, the newest if none is named, if its F1 exceeds the threshold and that of the promoted version."""
    registry, name = _registry(tracking_uri), _name(model)
    candidate = registry.version(name, str(version)) if version is not None else registry.newest(name)
    if candidate is None:
        raise LookupError(f"{name} has no version: publish one")
    current, limit = registry.promoted(name), _threshold(_kind(name), f1_threshold)

    def stays(why: str) -> Comparison:
        return Comparison(candidate, current, "", f"version {candidate.version}: {why}")

    if current is not None and current.version == candidate.version:
        return stays("it is promoted already")
    if candidate.f1 is None:
        return stays(f"its F1 is unknown: the run has neither {' nor '.join(METRICS)}")
    if not candidate.f1 > limit:
        return stays(f"F1 {candidate.f1:.4f} does not exceed the threshold {limit:g}")
    if current is not None and current.f1 is not None and not candidate.f1 > current.f1:
        return stays(f"F1 {candidate.f1:.4f} does not exceed {current.f1:.4f} of version {current.version}")
    set_to = registry.promote(name, candidate.version, pointer)
    return Comparison(candidate, current, set_to, f"version {candidate.version}: F1 {candidate.f1:.4f} exceeds the threshold {limit:g}"
                      + (f" and {current.f1:.4f} of version {current.version}" if current and current.f1 is not None else ""))  # fmt: skip


def download_model(
    model: str = "text", version: str | int | None = None, *, target: str | os.PathLike, tracking_uri: str | None = None
) -> Path:
    """Fetches a version, the promoted one if none is named, into target, checked against its manifest and its digest."""
    registry, name = _registry(tracking_uri), _name(model)
    chosen = registry.version(name, str(version)) if version is not None else registry.promoted(name)
    if chosen is None:
        raise LookupError(f"no version of {name} is promoted: name one")
    return registry.download(chosen, Path(target))
