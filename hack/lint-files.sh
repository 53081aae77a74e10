#!/usr/bin/env bash
# A file that needs more than 400 lines has more than one duty. Generated files are excepted.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=400
bad=0
while IFS= read -r -d '' file; do
  [ -f "$file" ] || continue
  lines=$(wc -l <"$file")
  [ "$lines" -ge "$limit" ] || continue
  head -n 5 "$file" | grep -q '^// Code generated .* DO NOT EDIT\.$' && continue
  [[ $(basename "$file") == zz_generated* ]] && continue
  echo "$file: $lines lines, at most $((limit - 1)): split it by duty"
  bad=1
done < <(git ls-files -z --cached --others --exclude-standard -- '*.go' '*.sh' '*.lua')
exit "$bad"
