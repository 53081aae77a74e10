#!/usr/bin/env bash
# Every shell script through shellcheck, the workflows through actionlint.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/bin/tools

scripts=()
while IFS= read -r -d '' file; do
  [ -f "$file" ] || continue
  case $(head -n 1 "$file" | tr -d '\0') in
    '#!'*bash | '#!'*/sh | '#!'*' sh') scripts+=("$file") ;;
  esac
done < <(git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci hack test)
"$tools/shellcheck" --external-sources --severity=style "${scripts[@]}"
echo "shellcheck: ${#scripts[@]} scripts"

if compgen -G '.github/workflows/*.y*ml' >/dev/null; then
  "$tools/actionlint" -shellcheck "$tools/shellcheck"
  echo "actionlint: workflows"
fi
