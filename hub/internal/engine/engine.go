package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// Liveness is what the engine asks of hub/internal/liveness.
type Liveness interface {
	Facts(spoke string) liveness.SpokeFacts
	Changed() <-chan struct{} // closed at the next change; ask before reading
}

// Epoch is what the engine asks of hub/internal/epoch.
type Epoch interface {
	Identifier() string       // sent with each response
	UID() string              // of the epoch
	Unacknowledged() []string // epochs that were lost by a restoration of the store
	Changed() <-chan struct{} // closed when the epoch, or what it supersedes, is another
	Marked() <-chan struct{}  // closed when the identifier has a newer mark
	// Verify returns once it is certain that what was read is of the store that Identifier tells of.
	Verify(ctx context.Context) error
	// Claim takes what a client says that it has seen; an error keeps it from being served now.
	Claim(ctx context.Context, spoke, seen string) error
}

// Replicas is what the engine asks of hub/internal/replicas.
type Replicas interface {
	// Acknowledge says what every router of this replica has acknowledged: Spokes by UID, as of their generation.
	Acknowledge(map[types.UID]int64)
	// Behind are the other replicas that have not said so of a Spoke.
	Behind(spoke types.UID, generation int64) []string
	// Changed is closed when Behind may say something else; ask before.
	Changed() <-chan struct{}
}

// Options of an Engine; all but Replicas, Grace, LeaseAge and SetLimit are required.
type Options struct {
	Fleet      string
	Epoch      Epoch // of the hub's store
	Registry   *registry.Registry
	Liveness   Liveness
	Synced     func(context.Context) bool // waits until the registry has been told of all that exists
	Peer       func(context.Context) (identity.ID, error)
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Replicas are the others; nil: there are none.
	Replicas Replicas
	// Grace is how long a hub that has started waits for spokes that have joined to be known completely; 10 s if 0.
	Grace time.Duration
	// Keepalive between routers; compile.DefaultKeepalive if zero.
	Keepalive compile.Keepalive
	// LeaseAge tells how long ago a spoke's Lease says it was renewed, for Explain; may be nil.
	LeaseAge func(spoke string) (time.Duration, bool)
	// SetLimit is the largest number of sets; compile.SetLimit if 0.
	SetLimit int
}

// Engine builds and publishes. Run it once, on every replica.
type Engine struct {
	o       Options
	metrics *metrics
	server  *delta.Server

	authz, clusters, tables *delta.Table
	open                    chan struct{} // closed when streams may be served

	mu      sync.RWMutex
	b       *builder
	taken   registry.Changes // the last, for what is told of it
	sure    map[string]bool  // spokes that were known completely once; what they declare is kept until it is withdrawn
	views   map[federate.View]*delta.Table
	members map[string]*membership
	notices map[types.UID]*notice
	epoch   string                 // what streams that are open were begun under
	unknown atomic.Pointer[string] // appended to the identifier: the spokes that are not known completely
	changed chan struct{}          // closed by the next build
}

// membership is a spoke as its streams know it; done ends them.
type membership struct {
	uid8 string
	view federate.View
	done chan struct{}
}

// New returns an engine that serves nothing yet.
func New(o Options) (*Engine, error) {
	if o.Registry == nil || o.Liveness == nil || o.Synced == nil || o.Peer == nil || o.Log == nil || o.Registerer == nil || o.Epoch == nil {
		return nil, errors.New("engine: Registry, Liveness, Synced, Peer, Log, Registerer and Epoch are required")
	}
	if o.Replicas == nil {
		o.Replicas = alone{}
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.SetLimit == 0 {
		o.SetLimit = compile.SetLimit
	}
	if o.Keepalive == (compile.Keepalive{}) {
		o.Keepalive = compile.DefaultKeepalive()
	}
	c, err := compile.New(o.Fleet, o.Keepalive)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		o: o, metrics: newMetrics(o.Registerer), b: newBuilder(c, o.SetLimit),
		authz: delta.NewTable(delta.ExtensionType), clusters: delta.NewTable(delta.ClusterType), tables: delta.NewTable(delta.ScopeType),
		open: make(chan struct{}), views: map[federate.View]*delta.Table{}, members: map[string]*membership{}, notices: map[types.UID]*notice{}, changed: make(chan struct{}),
		sure: map[string]bool{}, epoch: unmarked(o.Epoch.Identifier()),
	}
	e.server = delta.NewServer(delta.Options{View: e.view, Identify: e.identifier, Observe: delta.Observers(delta.Metrics(o.Registerer, "isthmus_hub"), e.observer())})
	if err := delta.TableMetrics(o.Registerer, "isthmus_hub", e.served); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return e, nil
}

// served are the tables of all views.
func (e *Engine) served() []*delta.Table {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.AppendSeq([]*delta.Table{e.authz, e.clusters, e.tables}, maps.Values(e.views))
}

// Server is the xDS server of what the engine builds.
func (e *Engine) Server() *delta.Server { return e.server }

// Serving is closed when streams are served.
func (e *Engine) Serving() <-chan struct{} { return e.open }

// NeedLeaderElection is false: every replica builds and serves.
func (e *Engine) NeedLeaderElection() bool { return false }

// Start builds until ctx ends.
func (e *Engine) Start(ctx context.Context) error {
	if !e.o.Synced(ctx) {
		return nil
	}
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { e.followNotices(ctx) })
	var p pace
	grace := time.NewTimer(e.o.Grace)
	defer grace.Stop()
	build := time.NewTimer(0) // the first build needs no change
	defer build.Stop()
	var slow turns
	backlog := time.NewTimer(time.Hour) // rearmed when something waits
	defer backlog.Stop()
	lively := e.o.Liveness.Changed()
	anew, marked := e.o.Epoch.Changed(), e.o.Epoch.Marked()
	tell, told := time.NewTicker(tellEvery), ""
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.o.Registry.Changed():
			build.Reset(time.Until(p.change(time.Now())))
		case <-lively:
			lively = e.o.Liveness.Changed()
			build.Reset(time.Until(p.change(time.Now())))
		case <-anew:
			anew = e.o.Epoch.Changed()
			build.Reset(0) // which begins the streams anew
		case <-marked:
			marked = e.o.Epoch.Marked()
			e.server.Tell()
		case <-tell.C:
			if now := e.identifier(); now != told {
				told = now
				e.server.Tell()
			}
		case <-e.o.Registry.Backlog():
			if due, ok := slow.wake(time.Now()); ok {
				backlog.Reset(due)
			}
		case <-build.C:
			if !e.certain(ctx) {
				build.Reset(uncertainRetry)
				continue
			}
			start := time.Now()
			spokes := e.build()
			now := time.Now()
			if waited, changed := p.build(now, now.Sub(start), spokes); changed {
				slow.beside(now)
				e.metrics.publish.Observe(waited.Seconds())
			}
		case <-backlog.C:
			if !e.certain(ctx) {
				backlog.Reset(uncertainRetry)
				continue
			}
			start := time.Now()
			spokes, again := e.buildBacklog(slow.enough())
			now := time.Now()
			if due, ok := slow.built(now, now.Sub(start), spokes, again); ok {
				backlog.Reset(due)
			}
		case <-grace.C:
			if !e.built() { // there is nothing to serve, and nothing that could be said of anybody
				grace.Reset(uncertainRetry)
				continue
			}
			e.serve("the grace period is over")
		}
	}
}

// build takes what changed, builds and publishes it. It returns how many spokes there are.
func (e *Engine) build() int {
	return e.apply(e.o.Registry.Take(e.liveness))
}

// buildBacklog takes a part of what waits of a spoke that changes faster than its budget, builds and publishes it. It returns
// how many spokes there are and when there is more to take; 0: nothing waits.
func (e *Engine) buildBacklog(enough int) (spokes int, again time.Duration) {
	c, took, again := e.o.Registry.TakeBacklog(enough, e.liveness)
	if !took {
		return 0, again
	}
	return e.apply(c), again
}

func (e *Engine) apply(c registry.Changes) int {
	start := time.Now()
	e.mu.Lock()
	assigned := e.b.assigned
	p := e.b.apply(c)
	before := unknown(e.taken)
	e.taken = c
	e.remember(c)
	e.doubt(before, unknown(c)) // who is told of the tables below is told what not to believe of them
	e.publish(p)
	e.doubt(unknown(c))
	e.endStreams()
	e.noteNotices(c)
	e.record(assigned)
	e.tellChanged()
	e.mu.Unlock()
	for _, err := range p.errs {
		e.metrics.errors.Inc()
		e.o.Log.Error("A resource failed to build; its last good version stays", "error", err)
	}
	e.metrics.build.Observe(time.Since(start).Seconds())
	if len(incomplete(c)) == 0 {
		e.serve("every spoke that has joined is known completely")
	}
	return len(c.Spokes)
}

func (e *Engine) liveness(spoke string) registry.Liveness {
	f := e.o.Liveness.Facts(spoke)
	l := registry.Liveness{Routers: f.Routers}
	switch f.Availability {
	case liveness.Silent:
		l.Lease = federate.LeaseExpired
	case liveness.Removed:
		l.Lease, l.Removed = federate.LeaseExpired, true
	case liveness.NeverSeen, liveness.Available, liveness.Held: // nothing is held against it
	}
	return l
}

// publish applies a build in the order in which a client needs it: authorisation before all, what is named before what names
// it, and removals the other way round.
func (e *Engine) publish(p publication) {
	e.authz.Apply(p.authz.upsert, nil)
	e.clusters.Apply(p.clusters.upsert, nil)
	for view, c := range p.assignments {
		if e.views[view] == nil {
			e.views[view] = delta.NewTable(delta.AssignmentType)
		}
		e.views[view].Apply(c.upsert, nil)
	}
	e.tables.Apply(p.tables.upsert, p.tables.remove)
	for view, c := range p.assignments {
		e.views[view].Apply(nil, c.remove)
	}
	e.clusters.Apply(nil, p.clusters.remove)
	maps.DeleteFunc(e.views, func(v federate.View, _ *delta.Table) bool { return !e.b.views[v] })
}

// serve opens the streams, once.
func (e *Engine) serve(why string) {
	select {
	case <-e.open:
		return
	default:
	}
	e.mu.RLock()
	waiting := incomplete(e.taken)
	e.mu.RUnlock()
	if len(waiting) > 0 {
		e.o.Log.Warn("Serving although spokes are not known completely; what this hub lacks of them stays with the routers that have it", "spokes", waiting)
	}
	e.o.Log.Info("Serving xDS", "reason", why)
	e.metrics.serving.Set(1)
	close(e.open)
}

// incomplete are the spokes that have joined or reported, and whose report and slices do not agree, or whose routers are not
// resolved yet.
func incomplete(c registry.Changes) []string {
	var out []string
	for name, f := range c.Facts {
		if (f.Joined || f.Reported) && !(f.Complete && f.Routers) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (e *Engine) record(assignedBefore int) {
	m := e.metrics
	m.assignments.Add(float64(e.b.assigned - assignedBefore))
	m.spokes.Set(float64(len(e.b.spokes)))
	m.shards.Set(float64(len(e.b.shards)))
	m.views.Set(float64(len(e.b.views)))
	for h, n := range e.health() {
		m.health.WithLabelValues(h.String()).Set(float64(n))
	}
	for state, n := range e.b.policyStates() {
		m.policies.WithLabelValues(state).Set(float64(n))
	}
	m.sets.Set(float64(len(e.b.uses)))
	resources, rejected, conflicts, stale, over, waiting := 0, 0, 0, 0, 0, 0
	for name, f := range e.taken.Facts {
		resources, rejected, conflicts = resources+f.Resources, rejected+f.Rejected, conflicts+e.b.conflicts[name]
		over, waiting = over+f.Overload.Refused, waiting+f.Waiting
		if stalled(f) {
			stale++
		}
	}
	m.failed.Set(float64(e.b.failed))
	m.resources.Set(float64(resources))
	m.rejected.Set(float64(rejected))
	m.conflicts.Set(float64(conflicts))
	m.incomplete.Set(float64(stale))
	m.overLimit.Set(float64(over))
	m.waiting.Set(float64(waiting))
}
