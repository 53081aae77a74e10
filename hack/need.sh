#!/usr/bin/env bash
# Installs Debian packages for commands that are missing: need.sh COMMAND:PACKAGE...
set -euo pipefail

missing=()
for pair in "$@"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "missing: ${missing[*]}. Install them and run again." >&2
    exit 1
  fi
  sudo=(sudo -n)
fi
if ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]} (Debian names). Install them with your system's package manager and run again." >&2
  exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq </dev/null >&2
"${sudo[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null >&2
