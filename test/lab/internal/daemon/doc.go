// Package daemon is the process behind a lab: it makes the network, starts the clusters, installs Isthmus from its
// charts, and then serves requests (package wire) until it is told to end. It runs as first process of a PID namespace, in
// network and mount namespaces of its own, so that nothing of a lab outlives it.
package daemon
