// Package charts tests the Helm charts: lint, golden renders, the schema of their values, and their RBAC and admission
// policy on a real API server.
//
//	go test ./test/charts -update    rewrites testdata/*.out.yaml
//
// The room reads charts/ and writes nothing but its own testdata. It knows no code of hub or spoke: what a process may
// do is written down here a second time, on purpose, so that a permission that is added or lost shows.
package charts
