"""python -m modelgate.publish text --checkpoint DIR --metric eval_f1=0.85"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from modelgate import publish
from modelgate.publish import bundle


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _metric(text: str) -> tuple[str, float]:
    name, value = _pair(text)
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelgate.publish", description="Publish a bundle or a checkpoint in MLflow.")
    parser.add_argument("kind", choices=publish.MODELS)
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="a Hugging Face checkpoint or a ready ONNX bundle")
    parser.add_argument("--metric", action="append", type=_metric, default=[], metavar="NAME=VALUE", help="eval_f1 or f1 is needed")
    parser.add_argument("--param", action="append", type=_pair, default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", metavar="MODEL", help="the registered name; by default the one that the gateway watches")
    parser.add_argument("--experiment")
    parser.add_argument("--tracking-uri", help="by default MLFLOW_TRACKING_URI")
    parser.add_argument("--promote", action="store_true", help="point the alias or stage to it if the F1 exceeds the threshold")
    parser.add_argument("--f1-threshold", type=float)
    parser.add_argument("--pointer", choices=("auto", "alias", "stage"), default="auto")
    parser.add_argument("--positive-label")
    parser.add_argument("--threshold", type=float, help="the score from which on an input is positive")
    parser.add_argument("--max-length", type=int, help="the most tokens of a text")
    sampling, rotation = bundle.CHOICES.values()
    parser.add_argument("--video-sampling", choices=sampling, help="how frames are chosen from a clip")
    parser.add_argument("--video-rotation", choices=rotation, help="of clips that say that they are shown turned")
    parser.add_argument("--quantize", action="store_true", help="int8 weights")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        # MLflow prints to stdout, which holds our answer only.
        with contextlib.redirect_stdout(sys.stderr):
            done = publish.log_model(
                args.checkpoint,
                dict(args.metric),
                dict(args.param),
                args.name,
                kind=args.kind,
                experiment=args.experiment,
                tracking_uri=args.tracking_uri,
                promote=args.promote,
                f1_threshold=args.f1_threshold,
                pointer=args.pointer,
                positive_label=args.positive_label,
                threshold=args.threshold,
                max_length=args.max_length,
                video_sampling=args.video_sampling,
                video_rotation=args.video_rotation,
                quantize=args.quantize,
            )
    except (ValueError, ImportError, OSError) as err:
        print(f"publish: {err}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(done), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
