package relay

import (
	"context"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/status"
)

// begun is how far a relay that starts has come: what it lacks until then it has not read yet, and nobody has withdrawn it.
type begun struct {
	local, view         chan struct{} // closed when this cluster's resources are published, and a view of the others, or none is waited for
	localDone, viewDone func()
}

func newBegun() *begun {
	b := &begun{local: make(chan struct{}), view: make(chan struct{})}
	b.localDone, b.viewDone = sync.OnceFunc(func() { close(b.local) }), sync.OnceFunc(func() { close(b.view) })
	return b
}

// sourced notes that there is a view, once it is published.
func (r *Relay) sourced(name string) {
	r.core.After(func() {
		r.ready.Source(name, false)
		r.begun.viewDone()
	})
}

// awaitBegun holds up the stream of an Envoy that has resources of an earlier relay's until there is as much to serve as that one served: it
// would be told that all else is gone, and goes on with what it has meanwhile. That this cluster's resources cannot be read is no reason to begin
// without: where its API server is away for long, its pods still serve. An Envoy that starts has nothing, and takes what there is.
func (r *Relay) awaitBegun(ctx context.Context, first *discoveryv3.DeltaDiscoveryRequest) error {
	if len(first.GetInitialResourceVersions()) == 0 {
		return nil
	}
	for what, done := range map[string]chan struct{}{"this cluster's resources": r.begun.local, "a view of other clusters": r.begun.view} {
		select {
		case <-done:
			continue
		default:
			r.cfg.Log.Info("Envoy has outlived the relay before this one; it goes on with what it has until there is as much", "awaited", what)
		}
		select {
		case <-done:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return nil
}
