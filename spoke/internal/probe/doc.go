// Package probe asks each peer router, over this spoke's own mTLS, whether it is well: one connection for each address,
// GET /healthz on its east-west listener. What it finds marks the peer in the assignments that this router serves, and is
// reported to the hub as the second witness beside the Lease.
//
// Envoy itself makes no active checks: per set they would cost a router of 1,000 clusters whole cores. It detects by
// keepalive and outlier detection; the probe only has to speak before an ejection of 10 s ends.
//
// A router that is to stop says so: its /healthz answers 503 while it still serves. That is believed at once.
//
// It may not touch Kubernetes, Envoy's configuration or the disk.
package probe
