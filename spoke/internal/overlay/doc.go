// Package overlay changes what the hub serves into what this cluster's Envoy is given: home first, the own place, and the
// peers that the relay's probe cannot reach.
//
// It is pure: resources in, resources out; what came in is never changed. It may not touch Kubernetes, the network, the
// clock, the disk or a logger, and keeps nothing between calls.
package overlay
