"""A model that was logged as MLflow 3 does it: a logged model of its own, with its own metrics, as a version's source."""

import shutil
from pathlib import Path

import mlflow
import onnx
import pytest

from gateway import BUNDLES, Gateway, gateway
from modelgate import Client, publish
from registry import mlflow_server


def log_model(bundle: Path, name: str, model_f1: float, run_f1: float, scratch: Path) -> tuple[str, str]:
    """What a training script does without this package. Returns the ids of the model and its run."""
    rest = shutil.copytree(bundle, scratch, ignore=shutil.ignore_patterns("model.onnx", "m*.json"))
    with mlflow.start_run() as run:
        logged = mlflow.onnx.log_model(onnx.load(bundle / "model.onnx"), name="text", pip_requirements=[])
        client = mlflow.MlflowClient()
        client.log_model_artifacts(logged.model_id, str(rest))
        mlflow.log_metric("eval_f1", model_f1, model_id=logged.model_id)
        # Of the run as a whole, and later.
        client.log_metric(run.info.run_id, "eval_f1", run_f1, step=1)
    version = mlflow.register_model(logged.model_uri, name)
    client.set_registered_model_alias(name, "production", version.version)
    return logged.model_id, run.info.run_id


def test_the_metric_of_a_logged_model_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_server(tmp_path, "venv", "python") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        model_id, run_id = log_model(BUNDLES / "1", "text_classification_model", 0.81, 0.1, tmp_path / "1")
        found = publish.get_latest_model_version("text")
        assert (found.version, found.pointer, found.source, found.f1) == ("1", "alias:production", f"models:/{model_id}", 0.81)
        assert mlflow.MlflowClient().get_run(run_id).data.metrics["eval_f1"] == 0.1
        with gateway(tmp_path, "--mlflow-tracking-uri", server, "--set", "update_interval=1s") as g, Client(g.grpc) as c:
            served = g.wait_for("1")
            assert (served["f1"], served["metric"]) == (0.81, "eval_f1")
            assert c.predict("worst customer service ever").label == "negative"
            # A better run is no better model.
            log_model(BUNDLES / "2", "text_classification_model", 0.80, 0.99, tmp_path / "2")
            refused = g.wait("a decision on 2", lambda: decision(g, "2"))
            assert (refused["candidate"]["f1"], refused["outcome"]) == (0.8, "refused") and g.serving()["version"] == "1"


def decision(g: Gateway, version: str) -> dict | None:
    """What the gateway's ledger says of a version."""
    entries = g.get("/v1/models/text/history").get("entries", [])
    return next((e for e in entries if e.get("candidate", {}).get("version") == version), None)
