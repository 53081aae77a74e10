// Package suite runs the Gateway API's own conformance tests (sigs.k8s.io/gateway-api/conformance) in a lab: against a real
// implementation alone, and against the hub's Gateways, which reach that implementation through a spoke's programs.
//
// The tests are upstream's and are taken as they are. What stands between them and the lab:
//   - the echo servers that their manifests name run as processes of the lab, built from upstream's source;
//   - for the hub's Gateways the manifests are translated (plan.Manifests): a route's backends are ServiceImports instead of
//     Services, each Service is exported, grants name ServiceImports, and Gateways do without the default route;
//   - arrangements/NAME.yaml says which features are claimed, and which tests are not run and why.
//
// A test that is listed as not run is run with -all. test/conformance writes docs/conformance.md from the results.
package suite
