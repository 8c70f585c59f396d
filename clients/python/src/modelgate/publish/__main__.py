"""python -m modelgate.publish text --checkpoint DIR --metric eval_f1=0.85"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from modelgate import publish
from modelgate.publish import bundle

_EXTRAS = f"{bundle.needs('registry', 'Ready bundles take')}; {bundle.needs('publish', 'checkpoints take')}."


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
    parser = argparse.ArgumentParser(
        prog="python -m modelgate.publish", description="Publish a bundle or a checkpoint in MLflow.", epilog=_EXTRAS
    )
    parser.add_argument("kind", choices=publish.MODELS)
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="a Hugging Face checkpoint or a ready ONNX bundle")
    parser.add_argument("--metric", action="append", type=_metric, default=[], metavar="NAME=VALUE", help="eval_f1 or f1 is needed")
    parser.add_argument("--param", action="append", type=_pair, default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", metavar="MODEL", help="the registered name; by default the one that the gateway watches")
    parser.add_argument("--experiment")
    parser.add_argument("--run-name")
    parser.add_argument("--tag", action="append", type=_pair, default=[], metavar="NAME=VALUE", help="of the version")
    parser.add_argument("--tracking-uri", help="by default MLFLOW_TRACKING_URI")
    parser.add_argument("--promote", action="store_true", help="point the alias or stage to it if the F1 exceeds the threshold")
    parser.add_argument("--f1-threshold", type=float)
    parser.add_argument("--pointer", choices=("auto", "alias", "stage"), default="auto")
    parser.add_argument("--positive-label")
    parser.add_argument("--threshold", type=float, help="the score from which on an input is positive")
    parser.add_argument("--max-length", type=int, help="the most tokens of a text")
    parser.add_argument("--example", action="append", metavar="TEXT", help="a golden example's text, in place of our own; may be repeated")
    parser.add_argument("--tolerance", type=float, help="how far a score may be off where the gateway runs, at most 0.1")
    sampling, rotation = bundle.CHOICES.values()
    parser.add_argument("--video-sampling", choices=sampling, help="how frames are chosen from a clip")
    parser.add_argument("--video-rotation", choices=rotation, help="of clips that say that they are shown turned")
    parser.add_argument("--quantize", action="store_true", help="int8 weights")
    return parser


def _sentence(err: Exception, tracking_uri: str | None) -> str:
    """What went wrong, for a person; empty where it is a fault of this program."""
    with contextlib.suppress(ImportError):
        from modelgate.publish import registry

        server = f"the MLflow server at {tracking_uri or os.environ.get('MLFLOW_TRACKING_URI')}"
        if registry.unreachable(err):
            return f"{server} can't be reached: start it, or name another with --tracking-uri"
        if isinstance(err, registry.MlflowException):
            return f"{server} says: {' '.join(str(err).split())[:500]}"
    return str(err) if isinstance(err, (ValueError, ImportError, OSError)) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    # MLflow's own seven take minutes until a server that isn't there is reported.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
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
                run_name=args.run_name,
                tags=dict(args.tag),
                tracking_uri=args.tracking_uri,
                promote=args.promote,
                f1_threshold=args.f1_threshold,
                pointer=args.pointer,
                positive_label=args.positive_label,
                threshold=args.threshold,
                max_length=args.max_length,
                video_sampling=args.video_sampling,
                video_rotation=args.video_rotation,
                examples=args.example,
                tolerance=args.tolerance,
                quantize=args.quantize,
            )
    except Exception as err:
        if not (said := _sentence(err, args.tracking_uri)):
            raise
        print(f"publish: {said}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(done), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
