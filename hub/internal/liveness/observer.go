package liveness

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// Resolver looks up host names; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of an Observer. Cache is required.
type Options struct {
	Cache cache.Cache
	// LeaseDuration is how long a spoke counts as available after a renewal was seen; 10 s when zero.
	LeaseDuration time.Duration
	// MassPercent: when more than this share of the spokes falls silent together, nothing is concluded; 50 when zero.
	MassPercent int
	// HubAddresses, host:port, are refused as routers; names are resolved as those of reports are.
	HubAddresses []string
	// Allow, when not empty, lists the only networks that routers may be in.
	Allow []netip.Prefix
	// Resolver is the system's when nil. Answers are asked for again every ResolveEvery (30 s), since the system's
	// resolver does not tell their TTL.
	Resolver     Resolver
	ResolveEvery time.Duration
	// Tick is how often Leases are judged; 500 ms when zero.
	Tick time.Duration
	// Registerer takes the metrics; none are kept when nil.
	Registerer prometheus.Registerer
	Clock      clock.WithTicker
	Log        *slog.Logger
}

// Observer watches. It implements manager.Runnable and runs on every replica.
type Observer struct {
	opts   Options
	synced chan struct{}
	kick   chan struct{} // there may be something to decide, or names to resolve

	mu       sync.Mutex
	spokes   map[string]*subject
	beats    map[string]*heartbeat
	reports  map[string]*v1alpha1.SpokeReport
	known    map[string]Knowledge
	decided  federate.Judgement
	unsure   bool // what is decided may be another by now
	names    map[string]*name
	policy   Policy
	lastTick time.Time
	changed  chan struct{}
	metrics  observerMetrics
}

// subject is a Spoke, as far as it matters here.
type subject struct {
	uid types.UID
	// foreign: the namespace is not ours, so neither are Lease and report.
	foreign bool
	// routers are those that its status names: what was last accepted of a report.
	routers []v1alpha1.RouterAddress
}

// New returns an Observer; add it to the manager, or call Start.
func New(o Options) (*Observer, error) {
	for _, at := range o.HubAddresses {
		if _, _, err := hostPort(at); err != nil {
			return nil, fmt.Errorf("liveness: hub address: %w", err)
		}
	}
	setDefault(&o.LeaseDuration, 10*time.Second)
	setDefault(&o.MassPercent, 50)
	setDefault(&o.ResolveEvery, 30*time.Second)
	setDefault(&o.Tick, 500*time.Millisecond)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	obs := &Observer{
		opts: o, synced: make(chan struct{}), kick: make(chan struct{}, 1),
		spokes: map[string]*subject{}, beats: map[string]*heartbeat{}, reports: map[string]*v1alpha1.SpokeReport{},
		known: map[string]Knowledge{}, decided: federate.Judgement{Spokes: map[string]federate.Verdict{}}, names: map[string]*name{}, policy: Policy{Allow: o.Allow},
		changed: make(chan struct{}), metrics: newMetrics(o.Registerer),
	}
	obs.policy.Hub = obs.hubAddrs()
	return obs, nil
}

func setDefault[T comparable](d *T, v T) {
	var zero T
	if *d == zero {
		*d = v
	}
}

// Facts is what the data plane needs to know of a spoke; of one that does not exist, NeverSeen.
func (o *Observer) Facts(spoke string) SpokeFacts { return o.Get(spoke).SpokeFacts }

// Get is everything known of a spoke; the zero Knowledge when there is no such Spoke.
func (o *Observer) Get(spoke string) Knowledge {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known[spoke]
}

// Changed is closed when the Knowledge of any spoke changes. A renewal that changes nothing is no change. Take the
// channel, then read, then wait for it; then take the next.
func (o *Observer) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Synced is closed when all objects that were there at the start have been taken in.
func (o *Observer) Synced() <-chan struct{} { return o.synced }

// NeedLeaderElection is false: every replica observes for itself.
func (o *Observer) NeedLeaderElection() bool { return false }

// Start observes until ctx ends.
func (o *Observer) Start(ctx context.Context) error {
	stop, err := o.watch(ctx)
	defer stop()
	if err != nil || ctx.Err() != nil {
		return err
	}
	o.judgeAll()
	close(o.synced)
	var lookups sync.WaitGroup
	defer lookups.Wait()
	tick := o.opts.Clock.NewTicker(o.opts.Tick)
	defer tick.Stop()
	for {
		o.resolveDue(ctx, &lookups)
		o.decideIfUnsure()
		select {
		case <-ctx.Done():
			return nil
		case <-o.kick:
		case <-tick.C():
			o.judgeAll()
		}
	}
}

// judgeAll lets Leases expire. A tick that comes late says that this process stood still: renewals of that time are
// still on their way, so no Lease may run out over it.
func (o *Observer) judgeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.opts.Clock.Now()
	if pause := now.Sub(o.lastTick) - o.opts.Tick; !o.lastTick.IsZero() && pause > o.opts.LeaseDuration/4 {
		o.opts.Log.Warn("the hub stood still, leases are extended", "pause", pause)
		for _, b := range o.beats {
			b.forgive(pause)
		}
	}
	first := o.lastTick.IsZero()
	o.lastTick = now
	if first || o.unsure || o.due(now) {
		o.decide()
	}
}

// judge brings the Knowledge of one spoke up to date; o.mu is held.
func (o *Observer) judge(spoke string) {
	s, ok := o.spokes[spoke]
	if !ok {
		if _, was := o.known[spoke]; was {
			delete(o.known, spoke)
			o.broadcast()
		}
		return
	}
	var k Knowledge
	switch r := o.reports[spoke]; {
	case s.foreign:
	case r != nil:
		k = o.judgeReport(spoke, r)
	default: // that a report is gone says nothing: its routers stay where they were
		k = judge(o.policy, s.routers, o.lookup)
		k.Accepted, k.Refused = s.routers, nil // as it was, resolved already or not
	}
	v := o.decided.Spokes[spoke]
	k.Availability, k.Reach = v.Presence, v.Reach
	if old, was := o.known[spoke]; was && old.equal(k) {
		return
	}
	for _, f := range k.Refused {
		if !slices.Contains(o.known[spoke].Refused, f) {
			o.metrics.refused.Inc()
		}
	}
	if len(k.Routers) > 0 != (len(o.known[spoke].Routers) > 0) {
		o.doubt()
	}
	o.known[spoke] = k
	o.broadcast()
}

func (o *Observer) judgeReport(spoke string, r *v1alpha1.SpokeReport) Knowledge {
	if r.Spec.Spoke != spoke {
		var k Knowledge
		for _, a := range r.Spec.Routers {
			k.Refused = append(k.Refused, Refusal{Address: a, Reason: fmt.Sprintf("the report is that of spoke %q", r.Spec.Spoke)})
		}
		return k
	}
	k := judge(o.policy, r.Spec.Routers, o.lookup)
	k.Reported, k.Version, k.Session = true, r.Spec.Version, r.Spec.Session
	k.Trust = r.Spec.Trust
	return k
}

// lookup is what is known of a host name; o.mu is held.
func (o *Observer) lookup(host string) lookup {
	if n := o.names[host]; n != nil {
		return n.lookup
	}
	return lookup{}
}

func (o *Observer) broadcast() {
	close(o.changed)
	o.changed = make(chan struct{})
}
