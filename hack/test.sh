#!/usr/bin/env bash
# Runs test suites: test.sh SUITE... [-- GO TEST ARGUMENTS]. Suites: unit, cel, e2e, chaos.
# A failed suite does not keep the next from running; the end is one summary over all of them.
#
# Tests wait more than they compute: for API servers that start, for Leases that expire. So more of them run at a time than
# there are processors, and cel runs beside unit. None asserts a time, and each package has API servers of its own.
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
rm -f "$results"/*.json "$results"/cel.log "$results"/failed-suites

# Without vet: `make vet` does it, with all of its checks and once for all; here it would go over every dependency again.
sum() {
  local suite=$1
  shift
  "$GOTESTSUM" --format "${TEST_FORMAT:-pkgname-and-test-fails}" --format-hide-empty-pkg --hide-summary=all \
    --jsonfile "$results/$suite.json" -- -vet=off "$@"
}
export -f sum
export results

# longest are the packages that wait longest. They begin first, so that none of them is left to run alone at the end.
longest=(test/lab spoke/internal/apply spoke test/charts hub hub/internal/gateway hub/internal/spoke spoke/internal/export)

unit() {
  local packages=() most=()
  if [[ " ${extra[*]-} " == *" ./"* ]]; then
    sum unit -race -timeout 15m "${extra[@]}"
    return
  fi
  # Where there are many, Go's own default does: it knows what a container may use of them, nproc does not.
  if [ "$(nproc)" -le 4 ]; then
    most=(-p "$(($(nproc) + 2))")
  fi
  # go test keeps to the order of its arguments, and drops what comes twice.
  mapfile -t packages < <(
    printf "$module/%s\n" "${longest[@]}"
    go list ./... | grep -vE "^$module/test/(e2e|cel|chaos/short|conformance/suite)(/|$)"
  )
  sum unit -race -timeout 15m "${most[@]}" "${extra[@]}" "${packages[@]}"
}

cel() {
  # Never cached: go test does not see which API server it ran against.
  sum cel -race -count=1 -timeout 10m "${extra[@]}" ./test/cel/...
}

# With a real Envoy Gateway, or what ISTHMUS_E2E_GATEWAY names, in every cluster: one lab for all.
e2e() {
  local name=${ISTHMUS_E2E_LAB:-e2e}
  hack/with-lab.sh "$name" --clusters eu,us,ap --hub-cluster eu --gateway "${ISTHMUS_E2E_GATEWAY:-envoy-gateway}" --certificate-namespaces certificates -- \
    bash -euo pipefail -c 'sum "$@"' sum e2e -count=1 -timeout 15m -exec "$PWD/bin/lab exec --name $name --" "${extra[@]}" ./test/e2e/...
}

# The short form: invariants, no times.
chaos() {
  local name=${ISTHMUS_CHAOS_LAB:-chaos}
  hack/with-lab.sh "$name" --clusters eu,us,ap --hub-cluster eu --faults -- \
    bash -euo pipefail -c 'sum "$@"' sum chaos-short -count=1 -timeout 15m -exec "$PWD/bin/lab exec --name $name --" "${extra[@]}" ./test/chaos/short/...
}

# run runs a suite and notes when it failed.
run() {
  local suite=$1 start=$SECONDS status
  echo "=== $suite"
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
}

# beside runs a second suite while the first runs; what it prints comes after the first. It has a process group of its own:
# a job of a script would else ignore SIGINT, and go on.
second=
beside() {
  set -m
  run "$2" >"$results/$2.log" 2>&1 </dev/null &
  second=$!
  set +m
  run "$1"
  wait "$second"
  second=
  cat "$results/$2.log"
}

# A signal ends the second suite as it ends the first: in order.
stop() {
  trap - INT TERM
  if [ -n "$second" ]; then
    kill -INT -- "-$second" 2>/dev/null || true
    wait "$second" || true
  fi
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

for suite in "${suites[@]}"; do
  case $suite in
    unit | cel | e2e | chaos) ;;
    *)
      echo "unknown suite $suite: unit, cel, e2e or chaos" >&2
      exit 2
      ;;
  esac
done
while [ ${#suites[@]} -gt 0 ]; do
  if [ "${suites[*]:0:2}" = "unit cel" ]; then
    beside unit cel
    suites=("${suites[@]:2}")
  else
    run "${suites[0]}"
    suites=("${suites[@]:1}")
  fi
done
hack/test-summary.sh
