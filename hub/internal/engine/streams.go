package engine

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// view is what a stream sees: the fleet from the location of the spoke that its certificate names. What the node says of
// itself is logged and decides nothing.
func (e *Engine) view(ctx context.Context, node *corev3.Node) (*delta.View, func(), error) {
	id, err := e.o.Peer(ctx)
	if err != nil {
		return nil, nil, e.refuse("no-identity", codes.Unauthenticated, "present the spoke's certificate", node, "error", err)
	}
	if id.Fleet != e.o.Fleet {
		return nil, nil, e.refuse("other-fleet", codes.PermissionDenied, "the certificate is of another fleet", node, "identity", id.URI())
	}
	if err := e.o.Epoch.Claim(ctx, id.Name, delta.SeenBy(node)); err != nil {
		return nil, nil, e.refuse("unsure", codes.Unavailable, "it is not certain that the hub serves from the store that this router has seen", node, "identity", id.URI(), "error", err)
	}
	var open <-chan struct{} = e.open
	for {
		changed := e.Changes()
		// Before the first build the registry may lack what the API server has: nobody is told that it is unknown.
		built := e.built()
		if _, ok := e.o.Registry.Admitted(id.Name, id.UID8); !ok && built {
			return nil, nil, e.refuse("unknown-spoke", codes.PermissionDenied, "no Spoke has this identity (it may have been deleted): create it and join again", node, "identity", id.URI())
		}
		if v, ok := e.viewOf(id); ok {
			return v, nil, nil
		}
		select {
		case <-changed:
		case <-open:
			open = nil // look again, then wait for builds only
		case <-ctx.Done():
			return nil, nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// built says whether there was a build: all that existed at the start is known.
func (e *Engine) built() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.builtLocked()
}

func (e *Engine) builtLocked() bool { return e.taken.Facts != nil }

// viewOf is the view of a spoke that is built and may be served.
func (e *Engine) viewOf(id identity.ID) (*delta.View, bool) {
	select {
	case <-e.open:
	default:
		return nil, false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	m, ok := e.members[id.Name]
	if !ok || m.uid8 != id.UID8 {
		return nil, false
	}
	return &delta.View{Tables: []*delta.Table{e.clusters, e.views[m.view], e.authz, e.tables}, Done: m.done}, true
}

func (e *Engine) refuse(reason string, code codes.Code, message string, node *corev3.Node, args ...any) error {
	e.metrics.refused.WithLabelValues(reason).Inc()
	e.o.Log.Warn("xDS stream refused", append([]any{"reason", reason, "claimedNode", node.GetId()}, args...)...)
	return status.Error(code, message)
}

// endStreams ends the streams of spokes that are gone, are another one now, or have moved.
func (e *Engine) endStreams() {
	for name, m := range e.members {
		s, ok := e.b.spokes[name]
		if !ok || s.UID8 != m.uid8 || federate.ViewOf(s) != m.view {
			close(m.done)
			delete(e.members, name)
		}
	}
	for name, s := range e.b.spokes {
		if e.members[name] == nil {
			e.members[name] = &membership{uid8: s.UID8, view: federate.ViewOf(s), done: make(chan struct{})}
		}
	}
}

// observer logs what an operator must know of: clients that refuse what they are sent.
func (e *Engine) observer() delta.Observer {
	return delta.Observer{
		Nacked: func(s delta.Stream, typeURL string, names []string, detail string) {
			e.o.Log.Warn("A client refused a response; its resources are sent one by one", "claimedNode", s.Node.GetId(), "type", typeURL, "resources", len(names), "detail", detail)
		},
		Quarantined: func(s delta.Stream, typeURL, name, version, detail string) {
			e.o.Log.Error("A client refused a resource; it is not sent again in this version", "claimedNode", s.Node.GetId(), "type", typeURL, "name", name, "version", version, "detail", detail)
		},
	}
}
