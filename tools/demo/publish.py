"""Publishes a bundle in MLflow as the pipeline's training scripts do: a run with its metrics and files, and a version made of it."""

import argparse
import json
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

EXPERIMENT = "tiktok_safety_text"
MODEL = "text_classification_model"
ALIAS = "production"
ARTIFACTS = "best_checkpoint"


class Registry:
    """An MLflow server, by its address."""

    def __init__(self, tracking_uri: str) -> None:
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        return known.experiment_id if known else self._client.create_experiment(EXPERIMENT)

    def publish(self, bundle: Path, params: dict[str, object], promote: bool = True) -> str:
        """Uploads the bundle, makes a version of it, promotes it if asked, and returns the version's number."""
        run = self._client.create_run(self._experiment(), run_name=bundle.name)
        run_id = run.info.run_id
        for name, value in params.items():
            self._client.log_param(run_id, name, value)
        for name, value in json.loads((bundle / "metrics.json").read_text()).items():
            self._client.log_metric(run_id, name, value)
        self._client.log_artifacts(run_id, str(bundle), ARTIFACTS)
        self._client.set_terminated(run_id)
        try:
            self._client.create_registered_model(MODEL)
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not register_model("runs:/..."): newer clients refuse a folder without an MLmodel file.
        version = self._client.create_model_version(MODEL, f"{run.info.artifact_uri}/{ARTIFACTS}", run_id).version
        if promote:
            self.promote(version)
        return str(version)

    def promote(self, version: str) -> None:
        """Points the alias at the version."""
        self._client.set_registered_model_alias(MODEL, ALIAS, version)


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish a bundle in MLflow.")
    parser.add_argument("bundle", type=Path, help="the folder that train.py wrote")
    parser.add_argument("--tracking-uri", default="http://127.0.0.1:5000")
    parser.add_argument("--promote", action="store_true", help=f"point the alias {ALIAS!r} at the new version")
    args = parser.parse_args()
    version = Registry(args.tracking_uri).publish(args.bundle, {"bundle": args.bundle.name}, args.promote)
    print(f"publish: {MODEL} version {version}{' is promoted' if args.promote else ''}")


if __name__ == "__main__":
    main()
