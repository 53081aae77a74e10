// Package epoch knows which store the hub serves from, and finds out that it is an earlier copy than the one it was.
//
//	k, err := epoch.Load(ctx, epoch.Options{Client: direct, Namespace: "isthmus-system", ...})
//	k.Identifier()          // what each xDS response says: epoch, what it supersedes, newest mark
//	k.Claim(ctx, seen)      // what a router says that it has seen, before it is served
//	k.Verify(ctx)           // before anything is published that was read anew
//
// Every replica runs a Keeper (Start reads every few seconds), the leader runs its Counter too, which counts marks (package lineage).
// A replica remembers the newest mark that it has read, a router the newest that it was told, with a code that only a hub of that
// epoch can make. A store in which such a mark is missing was restored: whoever finds that out begins a new epoch, so that routers
// and appliers keep what this store lacks (docs/decisions/0008).
//
// Everything is in ConfigMap isthmus-epoch, written under its resourceVersion alone, and the key of the codes in Secret isthmus-epoch.
// Reads go to the API server past every cache. No clock decides which store it is.
//
// It also knows which identities a store cannot know any more, and which were withdrawn in it: a cluster that joins a hub that lost its
// store may keep the one that it had (Inherits, Withdraw; docs/decisions/0026). That goes by the hub's clock.
//
// The room knows nothing of xDS, of Gateways or of the fleet.
package epoch
