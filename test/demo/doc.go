// Command demo shows Isthmus on three real clusters in the lab: `make demo`, or `make demo ARGS=--once`, which exits with
// the result.
//
// It runs in two stages. The outer one starts the lab, runs the inner one inside the lab's network (`bin/lab exec`) and
// takes the lab down in every case. The inner one does what a user would: kubectl apply, HTTP requests at the clusters'
// edges, `isthmus explain`. It knows clusters by kubeconfig and URL only (the output of `bin/lab env --json`) and
// starts agents with `bin/lab run` behind the Services that the KAOS operator would make.
//
// The room uses the commands only: nothing under hub/ or spoke/.
package main
