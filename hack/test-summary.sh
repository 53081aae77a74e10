#!/usr/bin/env bash
# The summary over the suites of the last test run: failures with their output, then "N passed, N failed".
# Fails when a test failed, when a suite ended otherwise than well, and when no test ran.
set -euo pipefail
cd "$(dirname "$0")/.."
results=$PWD/bin/results
shopt -s nullglob
files=()
for suite in unit cel e2e; do
  [ ! -s "$results/$suite.json" ] || files+=("$results/$suite.json")
done
if [ ${#files[@]} -eq 0 ]; then
  echo "no test ran" >&2
  exit 1
fi
status=0
# shellcheck disable=SC2016 # expanded by the inner shell, with gotestsum's variables
bin/tools/gotestsum --format none --hide-summary=skipped,output \
  --post-run-command 'sh -c "echo \"\$((TESTS_TOTAL - TESTS_FAILED - TESTS_SKIPPED)) passed, \$((TESTS_FAILED + TESTS_ERRORS)) failed, \$TESTS_SKIPPED skipped\""' \
  --raw-command -- cat "${files[@]}" || status=$?
if [ -s "$results/failed-suites" ]; then
  echo "failed: $(paste -sd' ' "$results/failed-suites")" >&2
  status=1
fi
exit "$status"
