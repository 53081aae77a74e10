// Package localtable turns the resources that live in this cluster, with their endpoints, into what the router's Envoy
// serves to its own edge and to other routers: the route table "local" and one pair of clusters per backing port.
//
// It is pure: resources in, Envoy resources and refusals out. It may not touch Kubernetes, the network, the clock or a
// logger, and knows nothing of the fleet's tables.
//
// A table that names a cluster needs its assignment (delta's Needs), so a route is never there before its endpoints are.
package localtable
