// Package disk keeps what the hub served on the router's volume, so that a router starts without a hub.
//
// Writes are behind: Put returns at once and a batch goes to the file every 100 ms at most. Reads happen once, at the start.
// The file is a cache: one that is damaged, or that another spoke, fleet or format wrote, is moved aside with a clear message
// and begun anew, and a damaged record is left out; nothing in it may stop a router.
//
// It may not touch Kubernetes, the network, or what resources mean.
package disk
