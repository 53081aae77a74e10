#!/usr/bin/env bash
# Three kind clusters, joined, for test/e2e: hack/kind/up.sh
#
# Builds the images, makes the clusters, installs the charts as a user would, waits until every Spoke is available, and
# writes a file in the format of `bin/lab env --json`. Then:
#
#   ISTHMUS_ENV=bin/kind/env.json ISTHMUS_AGENT_IMAGE=isthmus.local/agent:kind go test -count=1 -timeout 20m ./test/e2e/...
#
# The nodes of all kind clusters share one Docker network, and Linux reaches them from the host: so hub and routers are
# reached at node ports of the control-plane nodes, and no load balancer is needed. Settings: lib.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/kind/lib.sh
. hack/kind/lib.sh
need docker kind kubectl helm base64

hub_port=30443
edge_port=30080
eastwest_port=31443
timeout=300s

kube() {
  local cluster=$1
  shift
  kubectl --kubeconfig "$dir/$cluster.kubeconfig" "$@"
}

helm_install() {
  local cluster=$1
  shift
  helm upgrade --install --kubeconfig "$dir/$cluster.kubeconfig" --namespace isthmus-system --create-namespace "$@"
}

build_images() {
  local name
  for name in hub spoke agent; do
    docker build -f "build/$name.Dockerfile" -t "isthmus.local/$name:$tag" .
  done
}

# One cluster with its own kubeconfig; one that is there already is used as it is.
make_cluster() {
  local cluster=$1 args=()
  if ! kind get clusters 2>/dev/null | grep -qx "$prefix-$cluster"; then
    [ -z "$node_image" ] || args+=(--image "$node_image")
    kind create cluster --name "$prefix-$cluster" --kubeconfig "$dir/$cluster.kubeconfig" --wait "$timeout" "${args[@]}"
  fi
  kind export kubeconfig --name "$prefix-$cluster" --kubeconfig "$dir/$cluster.kubeconfig"
  kind load docker-image --name "$prefix-$cluster" "isthmus.local/spoke:$tag" "isthmus.local/agent:$tag"
  kube "$cluster" apply --server-side --recursive -f test/kaos/crds
}

# The address of a cluster's control-plane node in Docker's network.
address_of() {
  local address
  address=$(docker inspect --format '{{(index .NetworkSettings.Networks "kind").IPAddress}}' "$prefix-$1-control-plane")
  if [ -z "$address" ]; then
    echo "node $prefix-$1-control-plane has no address in Docker's network kind" >&2
    return 1
  fi
  printf '%s' "$address"
}

install_hub() {
  local cluster=$1 address=$2
  kind load docker-image --name "$prefix-$cluster" "isthmus.local/hub:$tag"
  # Helm installs CRDs only once; this also brings them up to date.
  kube "$cluster" apply --server-side --force-conflicts -f charts/hub/crds
  helm_install "$cluster" isthmus-hub charts/hub --wait --timeout "$timeout" \
    --set image.repository=isthmus.local/hub --set image.tag="$tag" \
    --set service.type=NodePort --set service.nodePort="$hub_port" \
    --set grpc.advertiseAddress="$address:$hub_port" --set apiServer.url="https://$address:6443"
}

# Waits until the hub has written the spoke's join values, or the spoke has joined, and prints the values.
join_values() {
  local hub=$1 spoke=$2
  for _ in $(seq 120); do
    if kube "$hub" -n "isthmus-spoke-$spoke" get secret join -o go-template='{{index .data "values.yaml"}}' 2>/dev/null | base64 -d; then
      return
    fi
    sleep 0.5
  done
  echo "no Secret isthmus-spoke-$spoke/join after a minute" >&2
  kube "$hub" get spoke "$spoke" -o yaml >&2
  return 1
}

install_spoke() {
  local hub=$1 spoke=$2 address=$3 values
  kube "$hub" apply -f - <<YAML
apiVersion: isthmus.dev/v1alpha1
kind: Spoke
metadata: {name: $spoke}
spec:
  location: {region: $spoke}
  namespaces: ["*"]
YAML
  if [ "$(kube "$hub" get spoke "$spoke" -o jsonpath='{.status.conditions[?(@.type=="Joined")].status}')" = True ]; then
    echo "$spoke has joined already" >&2
    return
  fi
  values=$(join_values "$hub" "$spoke")
  helm_install "$spoke" isthmus-spoke charts/spoke --values - \
    --set image.repository=isthmus.local/spoke --set image.tag="$tag" \
    --set router.service.type=NodePort --set router.address="$address:$eastwest_port" \
    --set router.service.nodePorts.edge="$edge_port" --set router.service.nodePorts.eastwest="$eastwest_port" <<<"$values"
}

write_env() {
  local hub=$1 cluster separator=""
  mkdir -p "$(dirname "$env_file")"
  {
    printf '{"hub": {"cluster": "%s", "kubeconfig": "%s", "xds": "https://%s:%s"}, "clusters": [' \
      "$hub" "$dir/$hub.kubeconfig" "${addresses[$hub]}" "$hub_port"
    for cluster in "${clusters[@]}"; do
      printf '%s\n  {"name": "%s", "kubeconfig": "%s", "edge": "http://%s:%s", "eastwest": "https://%s:%s"}' "$separator" \
        "$cluster" "$dir/$cluster.kubeconfig" "${addresses[$cluster]}" "$edge_port" "${addresses[$cluster]}" "$eastwest_port"
      separator=,
    done
    printf '\n]}\n'
  } >"$env_file"
}

mkdir -p "$dir"
build_images
declare -A addresses
for cluster in "${clusters[@]}"; do
  make_cluster "$cluster"
  addresses[$cluster]=$(address_of "$cluster")
done
hub=${clusters[0]}
install_hub "$hub" "${addresses[$hub]}"
for cluster in "${clusters[@]}"; do
  install_spoke "$hub" "$cluster" "${addresses[$cluster]}"
done
for cluster in "${clusters[@]}"; do
  kube "$hub" wait spoke "$cluster" --for=condition=Available --timeout="$timeout"
  kube "$cluster" -n isthmus-system rollout status statefulset/isthmus-router --timeout="$timeout"
done
kube "$hub" get spokes
write_env "$hub"
cat <<TEXT

  export ISTHMUS_ENV=$env_file ISTHMUS_AGENT_IMAGE=isthmus.local/agent:$tag
  go test -count=1 -timeout 20m ./test/e2e/...
  hack/kind/down.sh
TEXT
