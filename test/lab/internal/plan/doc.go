// Package plan is the lab's address plan: which addresses a lab's clusters, pods and load balancers have. It is pure:
// it may not touch the network. Every lab uses the same addresses, because each has a network of its own.
package plan
