// Package plan says what is expected of runs of the Gateway API's conformance tests, what upstream's manifests become for the
// lab, and how results are kept and shown. It is pure but for files: no cluster, no clock.
package plan
