#!/usr/bin/env bash
# Deletes what up.sh made, clusters that are half made too. Settings: lib.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/kind/lib.sh
. hack/kind/lib.sh
need kind

status=0
for cluster in "${clusters[@]}"; do
  kind delete cluster --name "$prefix-$cluster" || status=1
  rm -f "$dir/$cluster.kubeconfig"
done
rm -f "$env_file"
exit "$status"
