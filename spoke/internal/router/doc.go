// Package router writes what a router's Envoy needs besides the fleet's tables: its four listeners, the cluster that leads
// to the internal listener, the scope that tells whether the router is ready, and problem bodies.
//
// It is pure: configuration in, Envoy resources out. It may not touch Kubernetes, the network, the clock or a logger.
//
//   - edge and gateway serve the fleet's tables, one scope per namespace (SRDS); edge believes no header, gateway believes
//     one hop of X-Forwarded-* and takes x-isthmus-target.
//   - local (an internal listener) and eastwest (mTLS) serve the local table (RDS "local") alone, so that nothing loops.
//
// The listeners are templates in listeners.yaml: they stay comparable with what was measured (docs/decisions) and with what
// Envoy's admin endpoint prints.
package router
