#!/usr/bin/env bash
# Writes the generated files into a copy of the tree: generate.sh OUT ("." is the tree itself).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath "${1:?usage: generate.sh OUT}")
tools=$PWD/bin/tools

mkdir -p "$out/api/v1alpha1" "$out/charts/hub/crds"
"$tools/controller-gen" object crd paths=./api/... \
  output:object:dir="$out/api/v1alpha1" output:crd:dir="$out/charts/hub/crds"

PATH=$tools:$PATH protoc --proto_path=. \
  --go_out="$out" --go_opt=paths=source_relative \
  --go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
  internal/identity/identitypb/identity.proto
