"""Tells an MLflow server where to say that something changed, as README.md does, and then publishes what it reads from its input.

webhook.py TRACKING_URI HOOK SECRET: each line of input is a folder and an F1. Output is JSON, one object a line.
"""

import json
import sys

import mlflow

uri, hook, secret = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
events = ["model_version.created", "model_version_alias.created", "model_version_alias.deleted"]


def create(name, signed_with):
    webhook = client.create_webhook(name=name, url=hook, secret=signed_with, events=events)
    return client.test_webhook(webhook.webhook_id), webhook


def say(**what):
    print(json.dumps(what), flush=True)


refused, other = create("somebody-elses", "not the secret of modelgate")
client.delete_webhook(other.webhook_id)
accepted, _ = create("modelgate", secret)
say(refused=refused.response_status, accepted=accepted.response_status, error=accepted.error_message)

name = "text_classification_model"
client.create_registered_model(name)
for line in sys.stdin:
    folder, f1 = line.split()
    with mlflow.start_run() as run:
        mlflow.log_metric("eval_f1", float(f1))
        mlflow.log_artifacts(folder, "bundle")
    source = run.info.artifact_uri + "/bundle"
    version = client.create_model_version(name, source=source, run_id=run.info.run_id)
    client.set_registered_model_alias(name, "production", version.version)
    say(version=version.version)
