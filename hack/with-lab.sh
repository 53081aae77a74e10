#!/usr/bin/env bash
# Runs a command with a lab: with-lab.sh NAME UP-FLAGS... -- COMMAND...
# The command finds ISTHMUS_LAB (the name) and ISTHMUS_ENV (bin/results/NAME.env.json). The lab goes in every case; when the command
# failed, what its processes logged stays in bin/results/NAME.logs.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?usage: with-lab.sh NAME UP-FLAGS... -- COMMAND...}
shift
flags=()
while [ "${1:?no -- COMMAND}" != -- ]; do
  flags+=("$1")
  shift
done
shift

down() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then
    bin/lab status --name "$name" >&2 || true
    rm -rf "bin/results/$name.logs"
    cp -r "${XDG_RUNTIME_DIR:-/tmp}/isthmus-lab-$name/logs" "bin/results/$name.logs" || true
  fi
  bin/lab down --name "$name" >&2 || status=1
  exit "$status"
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export ISTHMUS_LAB=$name ISTHMUS_ENV=$PWD/bin/results/$name.env.json
mkdir -p bin/results
bin/lab up --name "$name" "${flags[@]}"
bin/lab env --name "$name" --json >"$ISTHMUS_ENV"
"$@"
