// Package spoke is the Spoke controller: it admits, describes and removes member clusters.
//
// For each Spoke it keeps a namespace with ServiceAccount, Role and RoleBinding, a Secret `join` while the spoke has not
// enrolled, and the Spoke's status; for each AgentSlice it writes the entries that are not used as they stand. Only the
// leader does so. What it knows of Leases and reports comes from hub/internal/liveness, what it knows of slices from the
// engine through Findings, and it asks the engine through Withdrawer before it takes a Spoke's credentials away.
//
//	obs := liveness.New(liveness.Options{Cache: mgr.GetCache(), LeaseDuration: 10 * time.Second, HubAddresses: []string{advertise}})
//	err := mgr.Add(obs)                                          // every replica
//	ids, err := identity.NewService(ctx, identity.Options{...})  // hub/internal/identity
//	err = spoke.Setup(mgr, spoke.Options{
//		Fleet: fleet, HubAddress: advertise, APIServer: url, APICA: ca,
//		Bundle: ids.Bundle, Liveness: obs, Findings: engine, Withdrawer: engine,
//	})
//
// Create the manager with `Cache: cache.Options{ByObject: spoke.CacheByObject()}`: without it every Secret and Lease of
// the hub's cluster is held in memory.
//
// What the hub's ClusterRole needs for it: spokes get/list/watch/update/patch, spokes/status and agentslices/status
// patch; namespaces get/list/watch/create/update/patch/delete; serviceaccounts, roles and rolebindings named `spoke` and
// secrets named `join` get/list/watch/update/patch/delete, and their creation; serviceaccounts/token of `spoke` create;
// events (events.k8s.io) create/patch. What it gives to spokes (access.go) it needs itself.
//
// The room writes no slices, reports, Leases or resources on the wire, and decides nothing about routing.
package spoke
