// Package engine turns changes of the registry into what the streams are served.
//
// A change wakes the engine; it waits a moment for more (coalesce.go), rebuilds the shards that changed (build.go, which has
// no clock, no streams and no lock) and applies the result to the delta tables in the order in which clients need it. A
// shard that fails to build keeps its last good table. Nothing is served before every spoke that has joined is known
// completely, or the grace period is over: a client that resumes would otherwise be told that the rest is gone.
//
// Streams are admitted by their verified identity and see the fleet from their Spoke's location (streams.go). The Spoke
// controller reads what the build found and has spokes withdrawn (findings.go); the debug endpoint reads Resources and
// Explain (describe.go).
//
// The engine writes nothing to the API.
package engine
