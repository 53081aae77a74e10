// Package compile turns the federated model into Envoy resources: one shard into its scoped route table, the fleet into
// clusters and the east-west authorisation, one view into its load assignments.
//
// It is pure, and knows neither Kubernetes clients nor streams. Every resource is validated before it leaves this room:
// Envoy refuses a whole response for one bad table in it.
package compile
