#!/usr/bin/env bash
# The summary over the suites of the last test run: failures with their output, then "N passed, N failed".
# Fails when a test failed, when a suite ended otherwise than well, and when no test ran.
set -euo pipefail
cd "$(dirname "$0")/.."
results=$PWD/bin/results
shopt -s nullglob
files=()
for suite in unit cel e2e chaos-short; do
  [ ! -s "$results/$suite.json" ] || files+=("$results/$suite.json")
done
if [ ${#files[@]} -eq 0 ]; then
  echo "no test ran"
  exit 1
fi
status=0
bin/tools/gotestsum --format none --hide-summary=skipped --raw-command -- cat "${files[@]}" || status=$?
broken=0
if [ -s "$results/failed-suites" ]; then
  broken=$(wc -l <"$results/failed-suites")
  echo "failed suites: $(paste -sd' ' "$results/failed-suites")"
  status=1
fi
# A package that fails without a failing test (it does not build, or its TestMain gave up) counts as one failure, and so
# does a suite that failed without any of these, such as a lab that did not start.
awk -v broken="$broken" '
  { package = $0; sub(/.*"Package":"/, "", package); sub(/".*/, "", package) }
  /"Test":/ && /"Action":"pass"/ { passed++ }
  /"Test":/ && /"Action":"fail"/ { failed++; told[package] = 1 }
  /"Test":/ && /"Action":"skip"/ { skipped++ }
  !/"Test":/ && /"Action":"fail"/ { packages[package] = 1 }
  END {
    for (p in packages) if (!(p in told)) failed++
    if (failed == 0) failed = broken
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
  }
' "${files[@]}"
exit "$status"
