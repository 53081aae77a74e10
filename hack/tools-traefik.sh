#!/usr/bin/env bash
# Puts Traefik into bin/tools, for `bin/lab up --gateway traefik`. The version is pinned in hack/traefik.
#
# Traefik is published to be built in its own checkout. The build is from its own go.mod and go.sum, in a folder of its own, with
# what the published module lacks: the nested module of extensions (empty), a fork under a version that the module proxy serves,
# and no providers of the ACME client's DNS challenge, one of which is not served at all.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/bin/tools
mkdir -p "$out"

module=github.com/traefik/traefik/v3
version=$(go -C hack/traefik list -m -f '{{.Version}}' $module)
if [ -x "$out/traefik" ] && [ "$(cat "$out/traefik.version" 2>/dev/null)" = "$version" ]; then
  exit 0
fi
go -C hack/traefik mod download $module
from=$(go -C hack/traefik list -m -f '{{.Dir}}' $module)

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
sed -e "s#^module .*#module traefik#" \
  -e 's#=> ./pkg/config/dynamic/ext#=> ./ext#' \
  -e 's#\(=> github.com/containous/go-http-auth\) .*#\1 v0.4.1-0.20200324110947-a37a7636d23e#' "$from/go.mod" >"$build/go.mod"
printf '\nrequire %s %s\n' $module "$version" >>"$build/go.mod"
cat "$from/go.sum" hack/traefik/go.sum >"$build/go.sum"
mkdir "$build/ext"
printf 'module github.com/traefik/traefik/dynamic/ext\n\ngo 1.26\n' >"$build/ext/go.mod"
cat >"$build/ext/ext.go" <<'EOF'
// Package ext has no extensions.
package ext

type (
	HTTP      struct{}
	Router    struct{}
	RouterIng struct{}
)

func (RouterIng) ToRouter() Router { return Router{} }

func (in *HTTP) DeepCopyInto(out *HTTP)           { *out = *in }
func (in *Router) DeepCopyInto(out *Router)       { *out = *in }
func (in *RouterIng) DeepCopyInto(out *RouterIng) { *out = *in }
EOF
cat >"$build/tools.go" <<EOF
//go:build tools

package tools

import _ "$module/cmd/traefik"
EOF

export GOFLAGS=-mod=mod
cd "$build"
go mod download github.com/go-acme/lego/v5
cp -r "$(go list -m -f '{{.Dir}}' github.com/go-acme/lego/v5)" lego
chmod -R u+w lego
echo 'replace github.com/go-acme/lego/v5 => ./lego' >>go.mod
cat >lego/providers/dns/zz_gen_dns_providers.go <<'EOF'
package dns

import (
	"errors"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows no provider.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, errors.New("built without DNS providers: " + name)
}
EOF
echo "building traefik $version (minutes, once)"
CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w" -o "$out/traefik.new" $module/cmd/traefik
mv "$out/traefik.new" "$out/traefik"
echo "$version" >"$out/traefik.version"
