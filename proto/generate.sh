#!/usr/bin/env bash
# Generates proto/xai_proto from the contract and the Open Inference Protocol. Run through `make proto`.
#
# The generator is pinned below the newest on purpose: generated code never runs on a protobuf or gRPC runtime older than
# its generator's, and the SDK has to install beside packages that hold protobuf at 5 (TensorFlow 2.19) or 6
# (tritonclient). MindSpore wants protobuf 7, so the generator lives in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
env=../.venv-proto
if [ ! -x "$env/bin/buf" ]; then
  "$python" -m venv "$env"
  "$env/bin/pip" install --quiet 'grpcio-tools==1.71.2' 'setuptools<81' buf-bin
fi
"$env/bin/buf" lint
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$env/bin/python" -m grpc_tools.protoc -I . --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
  xai/v1/*.proto inference/*.proto
# protoc mirrors the path of the .proto; the package is named xai_proto so that it takes no top-level name from others.
sed -i -E 's/^from (xai\.v1|inference) import/from xai_proto import/' "$out"/xai/v1/*.py "$out"/inference/*.py
"$env/bin/python" -m grpc_tools.protoc -I . --include_source_info --descriptor_set_out="$out/set" xai/v1/*.proto
"$env/bin/python" descriptions.py "$out/set" xai_proto/descriptions.json
cp "$out"/xai/v1/* "$out"/inference/* xai_proto/
echo "proto/xai_proto is up to date"
