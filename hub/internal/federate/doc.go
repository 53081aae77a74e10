// Package federate merges what the spokes declare into one routed namespace.
//
// One shard is one resource namespace: its entries go in, resources with their places and the conflicts between owners come
// out. Beside it stand the decisions that need no entry: how healthy a spoke's places are, and in which order places are
// tried from a view.
//
// It is pure: no clients, clocks, loggers, Envoy or Kubernetes machinery beyond the API's constants. What it is given is
// never changed.
package federate
