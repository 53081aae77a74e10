// Package e2e holds the end-to-end tests: real API servers, the charts as users install them, real Envoys.
//
// The tests know clusters by kubeconfig and URL only, read from the file that ISTHMUS_ENV names, in the format of
// `bin/lab env --json`; so the same tests run in the lab and on kind (hack/kind/up.sh). `make test-e2e` starts a lab,
// runs them inside its network and takes it down. What differs (how an agent's pods are run, how a process is killed)
// is behind the type platform: `bin/lab run` and `bin/lab fault` where ISTHMUS_LAB names a lab, Deployments and
// `kubectl delete pod` elsewhere.
//
// The room uses the public API types and the wire only: nothing under hub/ or spoke/.
package e2e
