// Package hub wires the rooms of hub/internal into one process: it reads the configuration, starts the manager, the gRPC
// server (Identity and ADS) and the endpoints for operators. It decides nothing.
//
// Every replica watches, builds and serves; only the leader writes.
package hub
