// Command bench measures a running lab: propagation, requests, memory. `make bench` starts the lab, runs it inside the
// lab's network and writes docs/benchmarks.md.
//
// It uses clusters as a user does: kubeconfigs, the edges' URLs, and /proc for the memory and CPU of the processes.
// The machines are shared: every figure is a median of rounds of one run, and ratios are taken within the run.
package main
