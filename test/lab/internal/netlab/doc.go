// Package netlab makes the lab's network: a network namespace per node and per pod, the links between them, and the
// userspace switch that delays what travels between clusters. All namespaces are anonymous: when the lab's daemon ends,
// the kernel removes them with everything in them. It knows addresses (package plan) and nothing of Kubernetes.
package netlab
