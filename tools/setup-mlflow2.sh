#!/usr/bin/env bash
# Makes .cache/mlflow2-venv: a server of the last MLflow 2, for the tests of modelstore/mlflow.
set -euo pipefail
exec "$(dirname "$0")/setup-python.sh" mlflow2
