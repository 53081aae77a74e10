// Package spoke wires a spoke's two processes: the controller (run.go) and the relay of a router pod (run_relay.go). What
// they do is in the rooms below internal; here are options, clients and lifetimes only.
package spoke
