#!/usr/bin/env bash
# Puts Envoy Gateway into bin/tools: its program, built from the module that pins it (hack/gateway), and in bin/tools/gateway
# its chart and all definitions, taken from the modules as they are published. Only `lab up --gateway envoy-gateway` needs them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/bin/tools
mkdir -p "$out"

module() { go -C "$1" list -m -f "$2" "$3"; }
version=$(module hack/gateway '{{.Version}}' github.com/envoyproxy/gateway)
api=$(module . '{{.Version}}' sigs.k8s.io/gateway-api)
stamp="envoy-gateway $version gateway-api $api"
if [ -x "$out/envoy-gateway" ] && [ "$(cat "$out/gateway/version" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

go -C hack/gateway mod download github.com/envoyproxy/gateway
go mod download sigs.k8s.io/gateway-api
gateway=$(module hack/gateway '{{.Dir}}' github.com/envoyproxy/gateway)
definitions=$(module . '{{.Dir}}' sigs.k8s.io/gateway-api)

if [ ! -x "$out/envoy-gateway" ] || [ -e "$out/gateway/version" ]; then
  echo "building envoy-gateway $version (minutes, once)"
  CGO_ENABLED=0 nice go -C hack/gateway build -trimpath -ldflags "-s -w" -o "$out/envoy-gateway.new" github.com/envoyproxy/gateway/cmd/envoy-gateway
  mv "$out/envoy-gateway.new" "$out/envoy-gateway"
fi

rm -rf "$out/gateway.new"
mkdir -p "$out/gateway.new/crds"
cp -r "$gateway/charts/gateway-helm" "$out/gateway.new/chart"
chmod -R u+w "$out/gateway.new"
# The published module has the chart's values as a template of its release.
# shellcheck disable=SC2016 # the chart's placeholders, not the shell's
sed -e "s#\${GatewayImage}#docker.io/envoyproxy/gateway:$version#" -e 's#${GatewayImagePullPolicy}#IfNotPresent#' \
  "$out/gateway.new/chart/values.tmpl.yaml" >"$out/gateway.new/chart/values.yaml"
mv "$out"/gateway.new/chart/charts/crds/crds/generated/*.yaml "$out/gateway.new/crds/"
rm "$out/gateway.new/chart/charts/crds/crds/gatewayapi-crds.yaml"
find "$definitions/config/crd/standard" -name '*.yaml' ! -name '*_vap_*' ! -name kustomization.yaml -exec cp {} "$out/gateway.new/crds/" \;
chmod -R u+w "$out/gateway.new"
echo "$stamp" >"$out/gateway.new/version"
rm -rf "$out/gateway"
mv "$out/gateway.new" "$out/gateway"
