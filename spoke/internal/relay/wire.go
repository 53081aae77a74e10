package relay

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// server serves Envoy: all tables on one ADS stream, and the secrets on SDS streams. These are two servers on one socket, so
// that readiness counts from an ADS stream alone.
func (r *Relay) server() *grpc.Server {
	view := &delta.View{}
	for _, t := range order {
		view.Tables = append(view.Tables, r.core.tables[t])
	}
	serve := func(v *delta.View, o delta.Observer, await func(context.Context, *discoveryv3.DeltaDiscoveryRequest) error) *delta.Server {
		return delta.NewServer(delta.Options{Observe: o, Await: await,
			View: func(context.Context, *corev3.Node) (*delta.View, func(), error) { return v, nil, nil }})
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(delta.MaxMessageBytes))
	serve(view, delta.Observers(delta.Metrics(r.cfg.Registry, "isthmus_relay"), r.observer()), r.awaitBegun).
		Register(only{g, discoveryv3.AggregatedDiscoveryService_ServiceDesc.ServiceName})
	serve(&delta.View{Tables: []*delta.Table{r.secrets}}, delta.Observers(r.trusting.observer(), r.keyed()), nil).
		Register(only{g, secretv3.SecretDiscoveryService_ServiceDesc.ServiceName})
	return g
}

// only registers one service of those that a server offers.
type only struct {
	grpc.ServiceRegistrar
	service string
}

func (o only) RegisterService(d *grpc.ServiceDesc, impl any) {
	if d.ServiceName == o.service {
		o.ServiceRegistrar.RegisterService(d, impl)
	}
}

// observer follows what Envoy acknowledges.
func (r *Relay) observer() delta.Observer {
	return delta.Observer{
		Acked: func(s delta.Stream, typeURL, name, version string) {
			r.ready.Settled(s.ID, typeURL, name, version)
			r.core.waiting.acked(delta.Ref{Type: typeURL, Name: name}, version, time.Now())
		},
		Nacked: func(s delta.Stream, typeURL string, names []string, detail string) {
			r.cfg.Log.Error("Envoy refused a response; its resources are sent alone", "type", typeURL, "resources", len(names), "detail", detail)
		},
		Quarantined: func(s delta.Stream, typeURL, name, version, detail string) {
			r.cfg.Log.Error("Envoy refused a resource; this version of it is not sent again", "type", typeURL, "name", name, "detail", detail)
			r.ready.Settled(s.ID, typeURL, name, version)
		},
		Resumed: func(s delta.Stream, _, _, _ string) { r.ready.Lived(s.ID) },
		Opened:  func(s delta.Stream) { r.ready.Opened(s.ID) },
		Closed:  func(s delta.Stream, _ error) { r.ready.Closed(s.ID) },
		Synced:  func(s delta.Stream, typeURL string) { r.ready.Synced(s.ID, typeURL) },
	}
}

// keyed follows which secrets Envoy has.
func (r *Relay) keyed() delta.Observer {
	has := func(s delta.Stream, _, name, _ string) { r.ready.Keyed(s.ID, name) }
	return delta.Observer{Acked: has, Resumed: has,
		Quarantined: func(s delta.Stream, _, name, _, _ string) { r.ready.Keyed(s.ID, name) },
		Closed:      func(s delta.Stream, _ error) { r.ready.Unkeyed(s.ID) }}
}

// followHub follows the hub from the moment that this spoke has a certificate. Each certificate has a connection of its own:
// the hub knows who calls by the certificate that the connection began with.
func (r *Relay) followHub(ctx context.Context) error {
	for ctx.Err() == nil && r.waitForLeaf(ctx) {
		as, leave := context.WithCancel(ctx)
		leaf, _ := r.cfg.Identity.Leaf()
		replaced := make(chan struct{})
		go func() {
			defer close(replaced)
			r.waitForOtherLeaf(as, leaf)
			leave()
		}()
		err := r.followAs(as)
		leave()
		<-replaced
		if err != nil {
			return err
		}
	}
	return nil
}

// followAs follows the hub with the present certificate, until the context ends.
func (r *Relay) followAs(ctx context.Context) error {
	conn, err := grpc.NewClient(r.cfg.HubAddress,
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(r.cfg.Identity, r.cfg.Fleet))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		return fmt.Errorf("hub address %q: %w", r.cfg.HubAddress, err)
	}
	defer func() { _ = conn.Close() }()
	client := delta.NewClient(conn, delta.ClientOptions{
		Node:  &corev3.Node{Id: r.cfg.Spoke, Cluster: "relay"},
		Types: upstreamTypes,
		Held:  r.mirror.held,
		Seen:  r.mirror.seen,
		Apply: r.apply,
		Connected: func() {
			r.metrics.hubConnected.Set(1)
			r.cfg.Log.Info("the hub answers", "hub", r.cfg.HubAddress)
		},
		Disconnected: func(err error) {
			r.metrics.hubConnected.Set(0)
			r.mirror.disconnected()
			if ctx.Err() == nil {
				r.cfg.Log.Warn("no stream to the hub; what it served last stays in force", "hub", r.cfg.HubAddress, "error", err)
			}
		},
	})
	for ctx.Err() == nil {
		// A stream began with what was held then; after a sibling's view was taken it has to begin again.
		stream, again := r.hubStream(ctx)
		_ = client.Run(stream) // always the context's error
		again()
	}
	return nil
}

// hubStream is the context of the streams to the hub, which resume ends.
func (r *Relay) hubStream(ctx context.Context) (context.Context, context.CancelFunc) {
	r.intake.Lock()
	defer r.intake.Unlock()
	stream, cancel := context.WithCancel(ctx)
	r.resume = cancel
	return stream, cancel
}

// waitForOtherLeaf returns when the certificate is another one, or the context ends.
func (r *Relay) waitForOtherLeaf(ctx context.Context, had *x509.Certificate) {
	for {
		next := r.cfg.Identity.Changed()
		if leaf, ok := r.cfg.Identity.Leaf(); ok && !leaf.Equal(had) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// waitForLeaf returns when there is a certificate; false when the context has ended.
func (r *Relay) waitForLeaf(ctx context.Context) bool {
	for {
		next := r.cfg.Identity.Changed()
		if _, ok := r.cfg.Identity.Leaf(); ok {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-next:
		}
	}
}

// apply takes one response of the hub: served first, written behind.
func (r *Relay) apply(_ context.Context, u delta.Update) error {
	if mirrored[u.Type] == nil {
		return fmt.Errorf("type %s was not asked for", u.Type)
	}
	r.intake.Lock()
	defer r.intake.Unlock()
	u, merged := r.keep(u)
	u = r.hold(u)
	v := r.mirror.take(u, merged...)
	if len(v.kept) > 0 {
		r.cfg.Log.Error("the hub is of another epoch and lacks what it never served; it is kept", "type", u.Type, "resources", len(v.kept), "epoch", u.Identifier)
	}
	r.metrics.stale.Set(map[bool]float64{true: 1}[r.mirror.stale()])
	r.core.Mirror(u.Type, u.Upsert, v.remove)
	r.raw[u.Type].Apply(u.Upsert, v.remove)
	if u.Type == router.ScopeType {
		r.dropIdle()
		r.metrics.held.Set(float64(r.mirror.heldRoutes()))
	}
	if r.store != nil {
		r.store.Put(u.Type, u.Upsert, v.remove)
		r.store.SetOwner("", v.epoch)
		if v.synced {
			r.store.SetWhole()
		}
		if v.mark != "" {
			r.store.SetMark(v.mark)
		}
	}
	if v.synced {
		r.sourced("hub")
	}
	return nil
}

// keep puts what is held and a hub of another epoch lacks into what it says. It returns what it changed as the hub said it.
func (r *Relay) keep(u delta.Update) (delta.Update, []delta.Resource) {
	hub := delta.ParseEpoch(u.Identifier)
	var merged []delta.Resource
	for i, said := range u.Upsert {
		before, doubted := r.mirror.doubted(hub, u.Type, said.Name)
		held, ok := r.raw[u.Type].Get(said.Name)
		if !doubted || !ok {
			continue
		}
		with, kept, err := overlay.Keep(u.Type, held, before, said)
		if err != nil {
			r.cfg.Log.Error("what is held cannot be kept beside what the hub says; the hub's counts", "type", u.Type, "name", said.Name, "error", err)
		}
		if kept {
			merged = append(merged, said)
			u.Upsert[i] = with
		}
	}
	return u, merged
}
