// Command bench measures a running lab: propagation, requests, memory; with -gateways Gateways, with -authorisation who is let in between routers.
// `make bench` starts the labs, runs it inside their networks and writes docs/benchmarks.md and the pages beside it.
//
// It uses clusters as a user does: kubeconfigs, the edges' URLs, and /proc for the memory and CPU of the processes. Of
// the product it uses what a spoke uses to join and to follow the hub.
// The machines are shared: every figure is a median of rounds of one run, and ratios are taken within the run.
package main
