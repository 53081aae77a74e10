// Package replicas lets the replicas of a hub tell each other what the routers that are connected to them have acknowledged.
//
// A router is connected to one replica, and the leader, which deletes Spokes and says that one is drained, must know of all. Each replica
// keeps a line of its own in one ConfigMap of the hub's store, which they share anyway: no port, no certificate and no address of
// a pod is needed for it. A line counts while it changes; one that does not for some seconds, by the reader's own clock, is of a replica
// that is gone, or cut off from the store: its routers hear of nothing new from it, and nobody waits for them.
//
// The room knows UIDs and generations of Spokes, and nothing of what is served: hub/internal/engine says what is acknowledged.
package replicas
