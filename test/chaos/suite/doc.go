// Package suite breaks a running fleet on purpose and measures what that costs: scenarios (data), a load of constant rate
// with open streams, a recorder, a reporter. test/chaos runs all of it and writes docs/resilience.md; test/chaos/short runs
// a part in `make test` and asserts what must hold whatever the speed of the machine.
//
// It knows clusters by kubeconfig and URL, and breaks things with `bin/lab fault`. Nothing under hub/ or spoke/.
package suite
