// Package program is the pure part of Gateways: Gateway API objects of the hub in, the programs of each spoke and the status
// of each object out. No clients, no clocks, no loggers.
//
// What needs two namespaces is decided here: allowedRoutes, ReferenceGrants, hostnames, backends, which of two routes with
// the same match counts. What comes out lies in one namespace of the spoke's cluster and names nothing outside it.
package program
