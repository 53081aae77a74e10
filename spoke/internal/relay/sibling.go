package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/disk"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

const (
	// siblingPause is how long a relay without a view waits for the hub before it asks the others, and between rounds.
	siblingPause = time.Second
	// siblingTime bounds one attempt: a view of 100,000 names passes in less.
	siblingTime = 3 * time.Second
)

// upstreamTypes are what a relay takes from an upstream, in the order of its subscriptions.
var upstreamTypes = []string{router.ClusterType, router.AssignmentType, router.ExtensionType, router.ScopeType}

// serveSiblings serves what this relay holds of the hub's view, as it came, to relays of the same spoke alone.
func (r *Relay) serveSiblings(ctx context.Context) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.cfg.SiblingAddress)
	if err != nil {
		return fmt.Errorf("port for siblings: %w", err)
	}
	view := &delta.View{}
	for _, t := range upstreamTypes {
		view.Tables = append(view.Tables, r.raw[t])
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(r.cfg.Identity))),
		grpc.MaxRecvMsgSize(delta.MaxMessageBytes), grpc.MaxConcurrentStreams(16))
	delta.NewServer(delta.Options{
		Identify: func() string {
			epoch, _ := r.mirror.offered()
			return epoch
		},
		View: func(ctx context.Context, _ *corev3.Node) (*delta.View, func(), error) {
			if err := r.admit(ctx); err != nil {
				return nil, nil, err
			}
			return view, nil, nil
		},
	}).Register(only{server, discoveryv3.AggregatedDiscoveryService_ServiceDesc.ServiceName})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(lis); err != nil && ctx.Err() == nil {
		return fmt.Errorf("port for siblings: %w", err)
	}
	return nil
}

// admit lets a relay of this very spoke in, if there is a view to offer.
func (r *Relay) admit(ctx context.Context) error {
	peer, err := identity.PeerID(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	own, err := r.own()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if peer != own {
		r.cfg.Log.Warn("a stranger asked for this router's view", "identity", peer.URI())
		return status.Error(codes.PermissionDenied, "only routers of the same spoke are served here")
	}
	r.intake.Lock() // no update is half taken
	_, ok := r.mirror.offered()
	r.intake.Unlock()
	if !ok {
		return status.Error(codes.Unavailable, "this router has no view to offer")
	}
	return nil
}

func (r *Relay) own() (identity.ID, error) {
	leaf, ok := r.cfg.Identity.Leaf()
	if !ok || len(leaf.URIs) != 1 {
		return identity.ID{}, errors.New("no certificate yet")
	}
	return identity.ParseURI(leaf.URIs[0].String())
}

// askSiblings takes another router's view while there is none: the disk was empty, and the hub does not answer. It ends once
// there is one.
func (r *Relay) askSiblings(ctx context.Context) error {
	if !r.waitForLeaf(ctx) {
		return nil
	}
	tick := time.NewTicker(siblingPause)
	defer tick.Stop()
	for r.mirror.lacking() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !r.mirror.lacking() {
			break
		}
		addresses, err := r.cfg.Siblings(ctx)
		if err != nil {
			r.cfg.Log.Warn("the other routers of this cluster cannot be found, will try again", "error", err)
		}
		for _, address := range addresses {
			if r.askSibling(ctx, address) {
				return nil
			}
		}
	}
	return nil
}

// askSibling takes one sibling's view; false when there is still none.
func (r *Relay) askSibling(ctx context.Context, address string) bool {
	c, err := r.fetch(ctx, address)
	if err != nil {
		r.metrics.siblings.WithLabelValues("failed").Inc()
		r.cfg.Log.Info("another router has no view to give", "sibling", address, "reason", err)
		return false
	}
	r.intake.Lock()
	defer r.intake.Unlock()
	gone, ok := r.mirror.adopt(c)
	if !ok {
		r.metrics.siblings.WithLabelValues("late").Inc()
		return true
	}
	r.metrics.siblings.WithLabelValues("ok").Inc()
	found := r.show(c)
	for _, t := range slices.Backward(order) {
		if names := gone[t]; len(names) > 0 {
			r.core.Mirror(t, nil, names)
			r.raw[t].Apply(nil, names)
		}
	}
	if r.store != nil {
		for t := range r.raw {
			r.store.Put(t, c.Tables[t], gone[t])
		}
		r.store.SetOwner("", c.Header.Epoch)
		r.store.SetWhole()
		r.store.SetMark(c.Header.Mark)
	}
	r.cfg.Log.Info("the relay starts from another router's view", "sibling", address, "resources", found, "epoch", c.Header.Epoch)
	if r.resume != nil {
		r.resume()
	}
	r.sourced("sibling")
	return true
}

// fetch reads a sibling's view to its end.
func (r *Relay) fetch(ctx context.Context, address string) (disk.Contents, error) {
	ctx, cancel := context.WithTimeout(ctx, siblingTime)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(identity.SiblingTLS(r.cfg.Identity))))
	if err != nil {
		return disk.Contents{}, err
	}
	defer func() { _ = conn.Close() }()
	c := disk.Contents{Tables: map[string][]delta.Resource{}}
	synced := map[string]bool{}
	var last error
	_ = delta.NewClient(conn, delta.ClientOptions{
		Node:  &corev3.Node{Id: r.cfg.Spoke, Cluster: "sibling"},
		Types: upstreamTypes,
		Apply: func(_ context.Context, u delta.Update) error {
			epoch := delta.ParseEpoch(u.Identifier)
			c.Header.Epoch, c.Header.Mark = epoch.UID, epoch.Mark
			c.Tables[u.Type] = append(c.Tables[u.Type], u.Upsert...)
			if synced[u.Type] = synced[u.Type] || u.Synced; complete(synced) {
				cancel()
			}
			return nil
		},
		Disconnected: func(err error) {
			// One stream only: half of one and half of another is no view.
			if last == nil {
				last = err
			}
			cancel()
		},
	}).Run(ctx)
	if !complete(synced) {
		return disk.Contents{}, last
	}
	c.Header.Whole = true
	return c, nil
}

// complete says that every type is complete.
func complete(synced map[string]bool) bool {
	for _, t := range upstreamTypes {
		if !synced[t] {
			return false
		}
	}
	return true
}
