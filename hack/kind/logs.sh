#!/usr/bin/env bash
# Prints what a failed run on kind left: objects, events and logs of every cluster. Never fails.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
# shellcheck source=hack/kind/lib.sh
. hack/kind/lib.sh
need kubectl

for cluster in "${clusters[@]}"; do
  config=$dir/$cluster.kubeconfig
  [ -r "$config" ] || continue
  echo "=== $cluster"
  kubectl --kubeconfig "$config" get spokes -o yaml 2>/dev/null
  kubectl --kubeconfig "$config" -n isthmus-system get pods,services,leases -o wide
  kubectl --kubeconfig "$config" -n isthmus-system get events --sort-by=.lastTimestamp
  for workload in deployment/isthmus-hub deployment/isthmus-spoke statefulset/isthmus-router; do
    kubectl --kubeconfig "$config" -n isthmus-system get "$workload" >/dev/null 2>&1 || continue
    echo "=== $cluster $workload"
    kubectl --kubeconfig "$config" -n isthmus-system logs "$workload" --all-containers --prefix --tail=300
  done
done
exit 0
