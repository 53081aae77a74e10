// Package gateway programs the hub's Gateways into the spokes: it follows the Gateway API objects of the hub, compiles them
// (hub/internal/gateway/program), writes what changed as GatewayPrograms, GatewayProgramSets and certificate bundles into the
// spokes' namespaces on the hub, and writes back into the users' objects what the spokes report.
//
//	gateways, err := gateway.New(gateway.Options{Config: cfg, Manager: mgr, Epoch: epoch.UID, Fleet: engine, Ready: engine.Serving(), ...})
//	err = mgr.Add(gateways)
//
// Only the leader does so. Each pass looks at everything and writes the difference, so a pass after which nothing is left
// to do writes nothing. It compiles as long as the Gateway API is installed; while it is not, it waits and leaves what there
// is alone. It touches no object of a user's but its status, and nothing on the wire.
package gateway
