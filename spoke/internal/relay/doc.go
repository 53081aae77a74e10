// Package relay is the control plane of one router: a client of the hub and the server of the Envoy beside it.
//
// What the hub serves is kept as it came (core's raw tables, and the disk behind them), changed by pure functions (overlay:
// home first, the own place, unreachable peers), joined with what this cluster has (localtable, router), and served over a
// Unix socket by internal/delta. One goroutine owns all of it: sources call Set and Apply, which note what changed and
// return; what has gathered when the goroutine comes round goes out together, the first change at once.
//
// So Envoy starts, restarts and follows local changes with the hub dead. It may not write to Kubernetes.
package relay
