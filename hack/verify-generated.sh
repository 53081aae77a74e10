#!/usr/bin/env bash
# Generates into a temporary folder and compares with the tree. The line that names protoc's version is not compared:
# protoc comes from the system.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

hack/generate.sh "$tmp"
bad=0
while IFS= read -r -d '' file; do
  path=${file#"$tmp"/}
  diff -u -I '^// .*protoc  *v' "$path" "$file" || bad=1
done < <(find "$tmp" -type f -print0)
for path in charts/hub/crds/*; do
  [ -e "$tmp/$path" ] || { echo "$path is generated no more: remove it"; bad=1; }
done
[ "$bad" -eq 0 ] || { echo "generated files are stale: run 'make generate' and commit" >&2; exit 1; }
echo "generated files are up to date"
