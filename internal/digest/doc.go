// Package digest hashes AgentSlices so that the hub can tell a complete set from a partial one.
//
// Both sides use it: the spoke reports count and hash of what it wrote, the hub computes them of what it read. Pure.
package digest
