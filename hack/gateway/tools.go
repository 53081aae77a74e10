//go:build tools

// Package gateway pins the Gateway API implementation that the lab runs. It is a module of its own: Envoy Gateway wants
// other versions of Kubernetes' modules than Isthmus and the API server.
package gateway

import (
	_ "github.com/envoyproxy/gateway/cmd/envoy-gateway"
)
