#!/usr/bin/env bash
# What up.sh and down.sh share. Sourced, from the root of the repository.
#
#   ISTHMUS_KIND          prefix of the kind clusters' names (isthmus)
#   ISTHMUS_KIND_CLUSTERS the clusters; the hub lives in the first ("eu us ap")
#   ISTHMUS_KIND_NODE     node image; empty: kind's own default
#   ISTHMUS_KIND_TAG      tag of the images that are built (kind)
prefix=${ISTHMUS_KIND:-isthmus}
read -r -a clusters <<<"${ISTHMUS_KIND_CLUSTERS:-eu us ap}"
node_image=${ISTHMUS_KIND_NODE:-}
tag=${ISTHMUS_KIND_TAG:-kind}
dir=$PWD/bin/kind
env_file=${ISTHMUS_ENV:-$dir/env.json}
export prefix clusters node_image tag dir env_file

need() {
  local missing=()
  for command in "$@"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "missing: ${missing[*]}. Install them and run again." >&2
    exit 1
  fi
}
