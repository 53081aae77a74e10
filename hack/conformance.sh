#!/usr/bin/env bash
# Runs the Gateway API's conformance tests: conformance.sh [ARRANGEMENT...] [-- TEST ARGUMENTS], by default all of
# test/conformance/arrangements, in one lab for each implementation: the name of an arrangement ends with its implementation's.
# Only Envoy Gateway's decide how this ends. Those of Traefik are reported.
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
  echo "=== conformance of $name (log: $log)"
  if (cd test/conformance/suite && ../../../bin/lab exec -- ../../../bin/conformance.test -test.v -test.timeout "$limit" -arrangement "$name" -results "$results" "$@") >"$log" 2>&1; then
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

# of lists the arrangements of an implementation, of those asked for.
of() {
  local name
  for name in "${names[@]}"; do
    if [ "${name%"$1"}" != "$name" ]; then echo "$name"; fi
  done
}

# lab runs arrangements in a lab with their implementation: lab IMPLEMENTATION LAB-NAME TIME-LIMIT-OF-ONE ARRANGEMENTS.
lab() {
  export limit=$3
  hack/with-lab.sh "$2" --clusters eu --hub-cluster eu --gateway "$1" \
    --certificate-namespaces gateway-conformance-infra,gateway-conformance-web-backend -- \
    bash -euo pipefail -c 'each "$@"' each "$4" "${extra[@]}"
}

for name in "${names[@]}"; do
  case $name in
    *envoy-gateway | *traefik)
      if [ -e "test/conformance/arrangements/$name.yaml" ]; then
        rm -f "$results/conformance-$name".{json,yaml} # of an earlier run
        continue
      fi
      ;;
  esac
  echo "there is no arrangement $name in test/conformance/arrangements" >&2
  exit 2
done

status=0
chosen=$(of envoy-gateway)
if [ -n "$chosen" ]; then
  lab envoy-gateway conformance 15m "$chosen" || status=1
fi
chosen=$(of traefik)
if [ -n "$chosen" ]; then
  if ! hack/tools-traefik.sh; then
    echo "=== Traefik could not be built, so it is not tested; conformance does not depend on it"
  elif ! lab traefik conformance-traefik 5m "$chosen"; then
    echo "=== conformance of Traefik: failed; reported only, conformance does not depend on it"
  fi
fi
go run ./test/conformance
exit "$status"
