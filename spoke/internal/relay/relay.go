package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/disk"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/probe"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// DefaultPatience is how long a router that has neither hub nor disk waits before it is ready with local resources alone,
// and how long it waits for tables that are held back.
const DefaultPatience = 10 * time.Second

// Config of a Relay.
type Config struct {
	Settings
	Fleet      string
	HubAddress string // host:port; empty: there is no hub
	Socket     string // path of the Unix socket for Envoy
	DataDir    string // empty: nothing is kept
	Identity   *identity.Source
	Registry   prometheus.Registerer
	Log        *slog.Logger
	Patience   time.Duration // DefaultPatience by default
	// ReleasePause is how often it is looked whether something is kept on account of a spoke that the hub knows completely by now; 2 s by default.
	ReleasePause time.Duration
	Probe        probe.Options // intervals; the rest is filled in
	// SiblingAddress, host:port, is where this relay serves its view to other relays of its spoke; empty: it does not.
	SiblingAddress string
	// Siblings are the addresses, host:port, of the spoke's other relays. Asked only while nothing is held and no hub answers;
	// nil: there are none.
	Siblings func(context.Context) ([]string, error)
}

// Relay is one router's control plane.
type Relay struct {
	cfg      Config
	core     *core
	metrics  *metrics
	ready    *readiness
	prober   *probe.Prober
	secrets  *delta.Table
	trusting *trusting
	begun    *begun
	store    *disk.Store // nil without a data directory
	mirror   *mirror
	raw      map[string]*delta.Table // what is held of the hub's view as it came, for siblings

	intake sync.Mutex         // one update at a time, of the hub or a sibling
	resume context.CancelFunc // ends the stream to the hub, so that it begins anew from what is held; nil while there is none
}

// New opens the disk and makes what can be made without a hub.
func New(cfg Config) (*Relay, error) {
	if err := errors.Join(identity.ValidateFleet(cfg.Fleet), identity.ValidateName(cfg.Spoke)); err != nil {
		return nil, err
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.ReleasePause == 0 {
		cfg.ReleasePause = releasePause
	}
	r := &Relay{cfg: cfg, secrets: delta.NewTable(router.SecretType), trusting: newTrusting(), begun: newBegun(), mirror: newMirror(), raw: map[string]*delta.Table{}}
	for t := range mirrored {
		r.raw[t] = delta.NewTable(t)
	}
	if cfg.HubAddress == "" {
		r.begun.viewDone()
	}
	var err error
	if r.metrics, err = newMetrics(cfg.Registry, r.mirror.age); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	r.prober = r.newProber()
	if r.core, err = newCore(cfg.Settings, cfg.Log, r.metrics, r.setPeers); err != nil {
		return nil, err
	}
	r.ready = &readiness{log: cfg.Log, metrics: r.metrics, set: r.core.SetReady, tables: func() []delta.Resource {
		return all(r.core.tables[router.ScopeType])
	}, keys: r.keys}
	r.core.removed = r.ready.Removed
	r.openDisk()
	if r.store == nil || r.store.Header().UID8 == "" {
		r.ready.Leaf()
	}
	return r, nil
}

func (r *Relay) newProber() *probe.Prober {
	opts := r.cfg.Probe
	opts.TLS, opts.Observe, opts.Log = probe.PeerTLS(r.cfg.Identity), r.metrics.probed, r.cfg.Log
	opts.Changed = func() {
		down := map[overlay.Peer]bool{}
		for _, p := range r.prober.Unreachable() {
			down[overlay.Peer(p)] = true
		}
		r.core.SetUnreachable(down)
	}
	return probe.New(opts)
}

func (r *Relay) setPeers(peers []overlay.Peer) {
	out := make([]probe.Peer, 0, len(peers))
	for _, p := range peers {
		if p.Spoke != "" && p.Hostname != "" {
			out = append(out, probe.Peer(p))
		}
	}
	r.prober.SetPeers(out)
}

// openDisk serves what the disk holds. A disk that cannot be used is logged, and the relay works without.
func (r *Relay) openDisk() {
	if r.cfg.DataDir == "" {
		return
	}
	store, c, err := disk.Open(r.cfg.DataDir, disk.Header{Fleet: r.cfg.Fleet, Spoke: r.cfg.Spoke, UID8: uid8(r.cfg.Identity)}, r.cfg.Log)
	if err != nil {
		r.cfg.Log.Error("the relay keeps nothing on disk; after a restart it needs the hub", "error", err)
		return
	}
	store.Written = r.metrics.written
	r.store = store
	r.mirror.restore(c)
	if found := r.show(c); found > 0 {
		r.cfg.Log.Info("the relay starts from its disk", "resources", found, "whole", c.Header.Whole, "epoch", c.Header.Epoch)
		r.sourced("disk")
	}
}

// show serves a view that was taken over whole, and returns how many resources it has.
func (r *Relay) show(c disk.Contents) (found int) {
	for _, t := range order {
		if rs := c.Tables[t]; len(rs) > 0 && r.raw[t] != nil {
			r.core.Mirror(t, rs, nil)
			r.raw[t].Apply(rs, nil)
			found += len(rs)
		}
	}
	return found
}

// SetLocal takes all resources of this cluster, with their endpoints. The router is not ready before the first call, or
// before it has waited for one.
func (r *Relay) SetLocal(rs []localtable.Resource) {
	r.SetLocalSoFar(rs)
	r.core.After(r.begun.localDone)
}

// SetLocalSoFar takes those that could be read, while others cannot. That is enough for an Envoy that starts.
func (r *Relay) SetLocalSoFar(rs []localtable.Resource) {
	r.core.SetLocal(rs)
	r.core.After(r.ready.Local)
}

// Unreachable are the spokes of which this router reaches no router, sorted.
func (r *Relay) Unreachable() []string { return r.prober.UnreachableSpokes() }

// Run serves Envoy and follows the hub until the context ends.
func (r *Relay) Run(ctx context.Context) error {
	lis, err := listenUnix(r.cfg.Socket)
	if err != nil {
		return err
	}
	server := r.server()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.core.Run(ctx) })
	g.Go(func() error { return r.prober.Run(ctx) })
	if r.store != nil {
		g.Go(func() error { return r.store.Run(ctx) })
	}
	g.Go(func() error {
		followIdentity(ctx, r.cfg.Identity, r.secrets, r.trusting.served, r.identityChanged, r.core.refuse)
		return nil
	})
	if r.cfg.HubAddress != "" {
		g.Go(func() error { return r.followHub(ctx) })
		g.Go(func() error { return r.release(ctx) })
	}
	g.Go(func() error { return r.waitPatiently(ctx) })
	if r.cfg.SiblingAddress != "" {
		g.Go(func() error { return r.serveSiblings(ctx) })
	}
	if r.cfg.Siblings != nil {
		g.Go(func() error { return r.askSiblings(ctx) })
	}
	g.Go(func() error { return server.Serve(lis) })
	g.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	return g.Wait()
}

// waitPatiently makes the router ready when nothing else does, with this Envoy or a later one.
func (r *Relay) waitPatiently(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Patience)
	defer tick.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if first {
			r.core.After(func() {
				r.ready.Leaf()
				r.ready.Source("local", true)
				r.begun.viewDone()
				r.ready.Local()
			})
			continue
		}
		r.ready.GiveUp(r.cfg.Patience)
	}
}

// keys are the secrets that Envoy needs to reach other clusters.
func (r *Relay) keys() []string {
	if _, ok := r.cfg.Identity.Leaf(); !ok {
		return nil
	}
	return []string{identitySecret, bundleSecret}
}

func (r *Relay) identityChanged(m identity.Material, leaf bool) {
	r.core.SetCertificates(leaf)
	if leaf {
		r.core.After(r.ready.Leaf)
	}
	if !leaf || r.store == nil {
		return
	}
	id := uid8(r.cfg.Identity)
	if had := r.store.Header().UID8; had != "" && id != "" && had != id {
		// What it was served stays in force, the list of those who may call above all, until the hub serves something else.
		r.cfg.Log.Info("this spoke has joined anew", "had", had, "have", id)
	}
	r.store.SetOwner(id, "")
}

// uid8 is the spoke's UID in the current leaf; empty before enrolment.
func uid8(src *identity.Source) string {
	leaf, ok := src.Leaf()
	if !ok || len(leaf.URIs) != 1 {
		return ""
	}
	id, err := identity.ParseURI(leaf.URIs[0].String())
	if err != nil {
		return ""
	}
	return id.UID8
}

// listenUnix replaces the socket that an earlier relay left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of the xDS socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("old xDS socket: %w", err)
	}
	lis, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("xDS socket: %w", err)
	}
	// Envoy may run as another user of the pod's group. Keys pass here, so nobody else may connect.
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("xDS socket: %w", err), lis.Close())
	}
	return lis, nil
}

func all(t *delta.Table) []delta.Resource {
	names := t.Names()
	out := make([]delta.Resource, 0, len(names))
	for _, n := range names {
		if r, ok := t.Get(n); ok {
			out = append(out, r)
		}
	}
	return out
}
