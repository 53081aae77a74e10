#!/usr/bin/env bash
# Runs test suites: test.sh SUITE... [-- GO TEST ARGUMENTS]. Suites: unit, cel, e2e, chaos.
# A failed suite does not keep the next from running; the end is one summary over all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
module=github.com/isthmus-dev/isthmus
results=$PWD/bin/results
export GOTESTSUM=$PWD/bin/tools/gotestsum

suites=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  suites+=("$1")
  shift
done
[ $# -eq 0 ] || shift
extra=("$@")
mkdir -p "$results"
rm -f "$results"/*.json "$results"/failed-suites

sum() {
  local suite=$1
  shift
  "$GOTESTSUM" --format "${TEST_FORMAT:-pkgname-and-test-fails}" --format-hide-empty-pkg --hide-summary=all \
    --jsonfile "$results/$suite.json" -- "$@"
}
export -f sum
export results

unit() {
  local packages=()
  if [[ " ${extra[*]-} " == *" ./"* ]]; then
    sum unit -race -timeout 10m "${extra[@]}"
    return
  fi
  mapfile -t packages < <(go list ./... | grep -vE "^$module/test/(e2e|cel|chaos/short|conformance/suite)(/|$)")
  sum unit -race -timeout 10m "${extra[@]}" "${packages[@]}"
}

cel() {
  # Never cached: go test does not see which API server it ran against.
  sum cel -race -count=1 -timeout 5m "${extra[@]}" ./test/cel/...
}

# With a real Envoy Gateway, or what ISTHMUS_E2E_GATEWAY names, in every cluster: one lab for all.
e2e() {
  local name=${ISTHMUS_E2E_LAB:-e2e}
  hack/with-lab.sh "$name" --clusters eu,us,ap --hub-cluster eu --gateway "${ISTHMUS_E2E_GATEWAY:-envoy-gateway}" --certificate-namespaces certificates -- \
    bash -euo pipefail -c 'sum "$@"' sum e2e -count=1 -timeout 10m -exec "$PWD/bin/lab exec --name $name --" "${extra[@]}" ./test/e2e/...
}

# The short form: invariants, no times.
chaos() {
  hack/with-lab.sh chaos --clusters eu,us,ap --hub-cluster eu --faults -- \
    bash -euo pipefail -c 'sum "$@"' sum chaos-short -count=1 -timeout 8m -exec "$PWD/bin/lab exec --name chaos --" "${extra[@]}" ./test/chaos/short/...
}

for suite in "${suites[@]}"; do
  case $suite in
    unit | cel | e2e | chaos) ;;
    *)
      echo "unknown suite $suite: unit, cel, e2e or chaos" >&2
      exit 2
      ;;
  esac
  echo "=== $suite"
  start=$SECONDS
  # A function called in a condition would run without -e.
  set +e
  (
    set -e
    "$suite"
  )
  status=$?
  set -e
  echo "=== $suite: $((SECONDS - start)) s, exit $status"
  [ "$status" -eq 0 ] || echo "$suite" >>"$results/failed-suites"
done
hack/test-summary.sh
