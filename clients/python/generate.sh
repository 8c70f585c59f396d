#!/usr/bin/env bash
# Writes src/modelgate/_proto/modelgate.binpb, the description of the API that the Python client makes its messages from. It is data
# and not code, so it asks for no certain version of protobuf. `tools/generate.sh protos` and `tools/setup-python.sh lint` come first.
set -euo pipefail
cd "$(dirname "$0")/../.."

.cache/tools-venv/bin/buf build --as-file-descriptor-set --exclude-source-info \
  --type modelgate.v1.PredictionService --type modelgate.v1.ModelService \
  -o "${1:-clients/python/src/modelgate/_proto/modelgate.binpb}"
