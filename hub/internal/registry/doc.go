// Package registry keeps what the spokes declare: caches of Spokes, their namespaces, AgentSlices and SpokeReports in, valid
// entries by resource namespace (shard) out.
//
// The core (validate.go, belief.go) is pure: which entries count, and when one that is no longer declared stops to count.
// registry.go puts the spokes together and tells what changed; watch.go feeds it from informers. Nothing a spoke writes is
// believed before it is checked, entry by entry: what is wrong in one place changes nothing elsewhere.
//
// This room knows nothing of Envoy and writes nothing to the API.
package registry
