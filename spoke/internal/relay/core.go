package relay

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// order is the order in which types are published; what is removed goes in the reverse order.
var order = []string{router.ClusterType, router.AssignmentType, router.ListenerType, router.RouteType, router.ScopeType, router.ExtensionType}

// mirrored are the types that come from the hub, and which names of each the hub may serve: it never replaces what this
// router makes itself.
var mirrored = map[string]func(name string) bool{
	router.ClusterType:    fleetCluster,
	router.AssignmentType: fleetCluster,
	router.ScopeType:      func(name string) bool { return strings.HasPrefix(name, overlay.ScopePrefix) },
	router.ExtensionType:  func(string) bool { return true },
}

func fleetCluster(name string) bool {
	return strings.HasPrefix(name, overlay.SpokePrefix) || strings.HasPrefix(name, "set/")
}

// Settings of what a core publishes.
type Settings struct {
	Spoke        string
	HideServedBy bool
	Ports        router.Ports
	Bind         string
}

// core turns the sources into the tables that Envoy is served.
type core struct {
	settings Settings
	log      *slog.Logger
	metrics  *metrics
	peers    func([]overlay.Peer)  // told whenever the peers may have changed
	removed  func(tables []string) // told when tables are published no more; optional

	tables map[string]*delta.Table

	mu      sync.Mutex
	pending inbox
	wake    chan struct{}

	// What follows belongs to the goroutine of Run.
	cache       localtable.Cache
	local       map[string][]localtable.Resource // by namespace
	published   localtable.Table
	scopes      map[string]*overlay.Scope // by namespace
	assignments map[string]*overlay.Assignment
	homes       map[string]overlay.Home // of namespaces with local resources
	unreachable map[overlay.Peer]bool
	certs       bool
	waiting     *propagation
}

// inbox holds what changed since the goroutine last looked.
type inbox struct {
	raw         map[delta.Ref]*delta.Resource // nil: removed
	local       *[]localtable.Resource
	unreachable map[overlay.Peer]bool
	certs       *bool
	ready       *bool
	after       []func() // called when all before it is published
}

func newCore(s Settings, log *slog.Logger, m *metrics, peers func([]overlay.Peer)) (*core, error) {
	c := &core{
		settings: s, log: log, metrics: m, peers: peers,
		tables: map[string]*delta.Table{}, wake: make(chan struct{}, 1),
		scopes: map[string]*overlay.Scope{}, assignments: map[string]*overlay.Assignment{},
		local: map[string][]localtable.Resource{}, homes: map[string]overlay.Home{}, waiting: newPropagation(m),
	}
	c.pending.raw = map[delta.Ref]*delta.Resource{}
	for _, t := range order {
		c.tables[t] = delta.NewTable(t)
	}
	return c, c.publishOwn()
}

// publishOwn publishes what exists before anything was heard of: the edge answers, with unknown namespaces.
func (c *core) publishOwn() error {
	st := newStage()
	cluster, err := router.LocalCluster()
	if err != nil {
		return err
	}
	st.put(router.ClusterType, cluster)
	ready, err := router.Readiness(false)
	if err != nil {
		return err
	}
	st.put(router.ScopeType, ready)
	if c.published, err = localtable.Build(nil, c.tableOptions(), &c.cache); err != nil {
		return err
	}
	st.put(router.RouteType, c.published.Routes)
	if err := c.stageListeners(st); err != nil {
		return err
	}
	st.publish(c.tables)
	return nil
}

func (c *core) tableOptions() localtable.Options {
	return localtable.Options{Spoke: c.settings.Spoke, HideServedBy: c.settings.HideServedBy}
}

func (c *core) note(f func(*inbox)) {
	c.mu.Lock()
	f(&c.pending)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Mirror takes what the hub, or the disk, says of one type. Names that the hub may not serve are left out.
func (c *core) Mirror(typeURL string, upsert []delta.Resource, remove []string) {
	allowed := mirrored[typeURL]
	if allowed == nil {
		c.log.Warn("the hub serves a type that this router does not take", "type", typeURL)
		return
	}
	c.note(func(in *inbox) {
		for _, r := range upsert {
			if !allowed(r.Name) {
				c.log.Warn("the hub serves a name that is not its own; it is left out", "type", typeURL, "name", r.Name)
				continue
			}
			in.raw[delta.Ref{Type: typeURL, Name: r.Name}] = &r
		}
		for _, name := range remove {
			if allowed(name) {
				in.raw[delta.Ref{Type: typeURL, Name: name}] = nil
			}
		}
	})
}

// SetLocal takes all resources of this cluster.
func (c *core) SetLocal(rs []localtable.Resource) { c.note(func(in *inbox) { in.local = &rs }) }

// SetUnreachable takes the peers that the probe cannot reach.
func (c *core) SetUnreachable(a map[overlay.Peer]bool) {
	c.note(func(in *inbox) { in.unreachable = a })
}

// SetCertificates says whether there are certificates to serve.
func (c *core) SetCertificates(there bool) { c.note(func(in *inbox) { in.certs = &there }) }

// SetReady says what /-/ready answers.
func (c *core) SetReady(ready bool) { c.note(func(in *inbox) { in.ready = &ready }) }

// After calls f when everything noted before is published.
func (c *core) After(f func()) { c.note(func(in *inbox) { in.after = append(in.after, f) }) }

// Run publishes until the context ends.
func (c *core) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		c.mu.Lock()
		in := c.pending
		c.pending = inbox{raw: map[delta.Ref]*delta.Resource{}}
		c.mu.Unlock()
		c.step(in, time.Now())
	}
}

// step works one inbox off.
func (c *core) step(in inbox, now time.Time) {
	st := newStage()
	namespaces := map[string]bool{} // whose tables are to be made again
	moved := c.takeAssignments(st, in)
	c.takeTables(st, in, namespaces)
	if in.local != nil {
		c.takeLocal(st, *in.local, namespaces)
	}
	c.moveHomes(moved, namespaces)
	for ns := range namespaces {
		c.stageScope(st, ns)
	}
	c.takeOwn(st, in)
	c.waiting.step(c, st, now)
	st.publish(c.tables)
	c.metrics.published(c)
	if gone := st.removed[router.ScopeType]; len(gone) > 0 && c.removed != nil {
		c.removed(gone)
	}
	for _, f := range in.after {
		f()
	}
}

// takeOwn stages what only the router itself decides.
func (c *core) takeOwn(st *stage, in inbox) {
	if in.certs != nil && *in.certs != c.certs {
		c.certs = *in.certs
		if err := c.stageListeners(st); err != nil {
			c.log.Error("listeners", "error", err)
		}
	}
	if in.ready != nil {
		r, err := router.Readiness(*in.ready)
		if err != nil {
			c.log.Error("readiness", "error", err)
			return
		}
		st.put(router.ScopeType, r)
	}
}

func (c *core) stageListeners(st *stage) error {
	ls, err := router.Listeners(c.settings.Ports, c.settings.Bind, c.certs)
	if err != nil {
		return err
	}
	st.put(router.ListenerType, ls...)
	return nil
}

// takeAssignments stages the hub's clusters and assignments, and returns the clusters of which this spoke became a place,
// or no longer is one.
func (c *core) takeAssignments(st *stage, in inbox) (moved map[string]bool) {
	dirty := map[string]bool{}
	moved = map[string]bool{}
	for ref, r := range in.raw {
		switch {
		case ref.Type != router.AssignmentType:
		case r == nil:
			moved[ref.Name] = c.here(ref.Name)
			delete(c.assignments, ref.Name)
			dirty[ref.Name] = true
		default:
			a, err := overlay.ReadAssignment(*r)
			if err != nil {
				c.refuse(err)
				continue
			}
			moved[ref.Name] = a.Holds(c.settings.Spoke) != c.here(ref.Name)
			c.assignments[ref.Name] = a
			dirty[ref.Name] = true
		}
	}
	peersChanged := len(dirty) > 0
	if in.unreachable != nil && !maps.Equal(in.unreachable, c.unreachable) {
		c.markDirty(dirty, in.unreachable)
		c.unreachable = in.unreachable
	}
	for name := range dirty {
		a := c.assignments[name]
		if a == nil {
			st.remove(router.AssignmentType, name)
			continue
		}
		r, err := a.For(c.settings.Spoke, c.unreachable)
		if err != nil {
			c.refuse(err)
			continue
		}
		st.put(router.AssignmentType, r)
	}
	if peersChanged {
		c.peers(c.allPeers())
	}
	return moved
}

// markDirty adds the assignments with an address whose state changed.
func (c *core) markDirty(dirty map[string]bool, unreachable map[overlay.Peer]bool) {
	for name, a := range c.assignments {
		if slices.ContainsFunc(a.Peers(), func(p overlay.Peer) bool { return unreachable[p] != c.unreachable[p] }) {
			dirty[name] = true
		}
	}
}

func (c *core) here(cluster string) bool {
	a := c.assignments[cluster]
	return a != nil && a.Holds(c.settings.Spoke)
}

func (c *core) allPeers() []overlay.Peer {
	seen := map[overlay.Peer]bool{}
	for _, a := range c.assignments {
		for _, p := range a.Peers() {
			if p.Spoke != c.settings.Spoke {
				seen[p] = true
			}
		}
	}
	return slices.Collect(maps.Keys(seen))
}

func (c *core) refuse(err error) {
	c.metrics.refused.Inc()
	c.log.Error("a resource cannot be used; the last good one stays", "error", err)
}
