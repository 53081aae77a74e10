// Package digest hashes AgentSlices, and names of GatewayPrograms, so that their reader can tell a complete set from a
// partial one.
//
// Both sides use it: the spoke reports count and hash of what it wrote, the hub computes them of what it read. The hash
// of the set is the sum of its slices' hashes, so both keep it up to date at O(1) a change. It guards against reading
// half, not against an adversary: a spoke that lies here harms its own resources only. Pure: no clients, no clock.
package digest
