#!/usr/bin/env bash
# Runs the Gateway API's conformance tests: conformance.sh [ARRANGEMENT...] [-- TEST ARGUMENTS], by default all of
# test/conformance/arrangements, in one lab.
set -euo pipefail
cd "$(dirname "$0")/.."
results=$PWD/bin/results
mkdir -p "$results"

names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  names+=("$1")
  shift
done
[ $# -eq 0 ] || shift
extra=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for file in test/conformance/arrangements/*.yaml; do
    name=${file##*/}
    names+=("${name%.yaml}")
  done
fi

# The images of upstream's manifests, as programs.
CGO_ENABLED=0 go build -trimpath -o bin/echo-basic sigs.k8s.io/gateway-api/conformance/echo-basic
go test -c -o bin/conformance.test ./test/conformance/suite

# shellcheck disable=SC2329 # by bash -c, below
# one runs an arrangement in the lab that is up.
one() {
  local name=$1 log=$results/conformance-$1.log
  shift
  rm -f "$results/conformance-$name".{json,yaml}
  echo "=== conformance of $name (log: $log)"
  if (cd test/conformance/suite && ../../../bin/lab exec -- ../../../bin/conformance.test -test.v -test.timeout 15m -arrangement "$name" -results "$results" "$@") >"$log" 2>&1; then
    return 0
  fi
  grep -E '^ *--- FAIL' "$log" || tail -n 30 "$log"
  echo "=== conformance of $name: failed; a test that is not listed in test/conformance/arrangements/$name.yaml is a regression"
  return 1
}

# shellcheck disable=SC2329 # by bash -c, below
# each runs all arrangements of one implementation.
each() {
  local failed=0 name
  for name in $1; do
    one "$name" "${@:2}" || failed=1
    # The tests remove their namespaces at the end; the next arrangement makes them anew.
    bin/lab exec -- kubectl wait --for=delete --timeout=5m namespace/gateway-conformance-{infra,app-backend,web-backend} || failed=1
  done
  return "$failed"
}
export -f one each
export results

status=0
hack/with-lab.sh conformance --clusters eu --hub-cluster eu --gateway envoy-gateway \
  --certificate-namespaces gateway-conformance-infra,gateway-conformance-web-backend -- \
  bash -euo pipefail -c 'each "$@"' each "${names[*]}" "${extra[@]}" || status=1
go run ./test/conformance
exit "$status"
