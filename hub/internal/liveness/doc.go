// Package liveness knows which spokes are alive and where their routers are.
//
// An Observer watches Spokes, Leases and SpokeReports through the manager's cache, on every replica, and writes nothing:
// each replica serves xDS by its own view. A spoke is Available while its Lease is seen to change; how old the Lease says
// it is does not matter, so no clock but the hub's decides. Router addresses come from the report and are believed only
// when Policy lets them pass; host names are resolved, their answers checked likewise, and the last good answer is kept
// for as long as the report names the host.
//
// Who is Available is decided by federate, from the Leases of all spokes and from what each reports of the others. Here events are
// gathered and the decision is asked for: soon after one that may change it, and at the tick at which a Lease expires.
//
//	obs := liveness.New(liveness.Options{Cache: mgr.GetCache(), LeaseDuration: 10 * time.Second})
//	err := mgr.Add(obs)
//	for {
//		changed := obs.Changed() // before reading
//		facts := obs.Facts("eu")
//		<-changed
//	}
//
// The room makes no decision about places: that is federate's too.
package liveness
