// Package export writes what this cluster offers to the hub: Resources become AgentSlices in the spoke's namespace there,
// and the SpokeReport says how many and which.
//
// Pack and hold are pure: which entry is in which slice, and when a resource counts as not ready. The Exporter works by
// source namespace, level-triggered: it compares what the source says with what the hub's API server last acknowledged,
// and writes the difference, new places before old ones go. What a previous session wrote is adopted; nothing is deleted
// before the source has been read completely. The Reporter follows within a second.
//
// The room reads its own slices and report on the hub and writes only those. Credentials and addresses are hublink's.
package export
