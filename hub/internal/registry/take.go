package registry

import (
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// Changes are what differs from the last Take.
type Changes struct {
	// Shards that may have changed, with all their entries now; none for a namespace that is gone.
	Shards map[string][]federate.Entry
	// Policies of the same namespaces that break no rule, in no order.
	Policies map[string][]*federate.Policy
	// Spokes are all that exist and are not being deleted. Fleet is true when they, or what is known of them, changed.
	Spokes map[string]federate.Spoke
	Fleet  bool
	// Facts are what is told of each spoke beside its entries, by name.
	Facts map[string]Facts
	// Leaving are the Spokes that are being deleted, and their generation as of which they are.
	Leaving map[types.UID]int64
}

// Facts are what the registry says of a spoke.
type Facts struct {
	UID        types.UID
	Generation int64 // of the Spoke
	Resources  int   // accepted, held ones among them
	Rejected   int   // entries
	Complete   bool  // report and slices agreed in this session
	Reported   bool  // there is a report of its own
	Waiting    int   // slices that changed and are not taken in yet
	Overload   Overload
	Joined     bool // the Spoke's condition says so
	Routers    bool // the spoke names routers and at least one address is known, or it names none
}

// SliceFacts are what the registry says of a slice. Both are shared and not to be changed.
type SliceFacts struct {
	Object   *v1alpha1.AgentSlice
	Rejected []v1alpha1.SliceEntryStatus // may name a resource more than once
}

// Take takes in the slices of all spokes that are within their budget, compares reports with slices and returns what changed
// since the last call. The first call takes in everything. liveness tells what is known of a spoke beside its declarations;
// it must not call the registry.
func (r *Registry) Take(liveness func(spoke string) Liveness) Changes {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for namespace, m := range r.members {
		if m.inbox.count == 0 || r.taken && !m.inbox.judge(r.limits.ChangeRate, now) {
			continue
		}
		m.inbox.tokens -= float64(m.inbox.count)
		r.takeIn(namespace, m, m.inbox.all())
	}
	r.taken = true
	return r.collect(liveness, now)
}

// TakeBacklog takes in a part of what waits of one spoke that changes faster than its budget, in turns, and returns what
// changed like Take. A part is whole namespaces, no more of them once they hold as many entries as are enough. took is false when no budget allows anything yet. again is when to call next; 0: nothing waits.
func (r *Registry) TakeBacklog(enough int, liveness func(spoke string) Liveness) (c Changes, took bool, again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	namespace, next := r.turn(now)
	if next != nil {
		r.takeIn(namespace, next, next.inbox.part(r.limits.ChangeRate, enough, now))
		c, took = r.collect(liveness, now), true
	}
	for _, m := range r.members {
		if m.inbox.backlogged {
			if wait := m.inbox.wait(r.limits.ChangeRate); again == 0 || wait < again {
				again = wait
			}
		}
	}
	return c, took, again
}

// turn is the spoke whose turn it is, of those whose budget allows something; nil when there is none.
func (r *Registry) turn(now time.Time) (namespace string, next *member) {
	for ns, m := range r.members {
		if !m.inbox.backlogged {
			continue
		}
		if m.inbox.refill(r.limits.ChangeRate, now); m.inbox.tokens < 1 {
			continue
		}
		if next == nil || m.inbox.served.Before(next.inbox.served) || m.inbox.served.Equal(next.inbox.served) && ns < namespace {
			namespace, next = ns, m
		}
	}
	return namespace, next
}

// takeIn judges slices as they are now.
func (r *Registry) takeIn(namespace string, m *member, all []change) {
	before := usage{m.belief.total, m.used.slices, m.used.bytes}
	m.reserve(r.limits, all)
	defer func() { m.reserved = nil }()
	for _, c := range all {
		if old := m.slices[c.name]; old != c.slice {
			m.invalid -= old.invalid()
		}
		if c.slice == nil {
			delete(m.slices, c.name)
			m.setShare(c.name, share{})
			maps.Copy(r.dirty, m.belief.declare(c.name, nil, nil))
			continue
		}
		m.slices[c.name] = c.slice
		maps.Copy(r.dirty, r.read(m, c.name))
	}
	// Again for those of which something was refused: what left room in this batch counted when they were judged, and what
	// counts by another slice now is not refused here.
	touched := namespaces{}
	for _, c := range all {
		if c.slice != nil {
			touched[c.slice.object.Spec.SourceNamespace] = struct{}{}
		}
	}
	for _, name := range m.overLimit() {
		if s := m.slices[name]; s != nil {
			if _, ok := touched[s.object.Spec.SourceNamespace]; ok {
				maps.Copy(r.dirty, r.read(m, name))
			}
		}
	}
	if m.retry(before); m.inbox.count > 0 && !m.inbox.backlogged {
		r.signal(m)
	}
	r.forget(namespace)
}

// Backlog holds a value when TakeBacklog has something.
func (r *Registry) Backlog() <-chan struct{} { return r.backlog }

// collect gathers what changed.
func (r *Registry) collect(liveness func(spoke string) Liveness, now time.Time) Changes {
	for _, m := range r.members {
		r.compare(m)
		if m.admitted() {
			l := liveness(m.spoke.Name)
			r.fleet = r.fleet || l.Lease != m.liveness.Lease || l.Removed != m.liveness.Removed || !slices.Equal(l.Routers, m.liveness.Routers)
			m.liveness = l
		}
	}
	c := Changes{
		Shards: make(map[string][]federate.Entry, len(r.dirty)), Spokes: map[string]federate.Spoke{}, Fleet: r.fleet,
		Facts: map[string]Facts{}, Policies: map[string][]*federate.Policy{}, Leaving: map[types.UID]int64{},
	}
	for ns := range r.dirty {
		c.Shards[ns] = nil
		if some := r.policiesOf(ns); len(some) > 0 {
			c.Policies[ns] = some
		}
	}
	for _, m := range r.members {
		if m.spoke == nil {
			continue
		}
		if m.admitted() {
			c.Spokes[m.spoke.Name] = m.model()
			c.Facts[m.spoke.Name] = m.facts(now)
		} else {
			c.Leaving[m.spoke.UID] = m.spoke.Generation
		}
		if !m.active() {
			continue
		}
		for ns := range r.dirty {
			c.Shards[ns] = append(c.Shards[ns], m.belief.entries(ns)...)
		}
	}
	r.dirty, r.fleet = namespaces{}, false
	return c
}

func (m *member) facts(now time.Time) Facts {
	f := Facts{UID: m.spoke.UID, Generation: m.spoke.Generation, Complete: m.belief.complete, Reported: m.report != nil, Routers: true, Waiting: m.inbox.count, Rejected: m.invalid, Overload: m.overload(now)}
	if m.active() {
		f.Resources = m.belief.total
	}
	f.Joined = meta.IsStatusConditionTrue(m.spoke.Status.Conditions, v1alpha1.SpokeJoined)
	if len(m.spoke.Status.Routers) > 0 {
		f.Routers = len(m.liveness.Routers) > 0
	}
	return f
}

// Slice tells what is found of a slice. False when it does not exist, or its Spoke does not.
func (r *Registry) Slice(name types.NamespacedName) (SliceFacts, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[name.Namespace]
	if m == nil || m.spoke == nil || m.slices[name.Name] == nil {
		return SliceFacts{}, false
	}
	s := m.slices[name.Name]
	return SliceFacts{Object: s.object, Rejected: s.rejected}, true
}

// Inputs are the sources of one spoke's part in a resource, and their ages by the hub's clock.
type Inputs struct {
	Slices    []SliceInput
	ReportAge time.Duration // negative: there is no report
	Session   string
	Complete  bool
}

// SliceInput is one slice that declares the resource.
type SliceInput struct {
	Name       string
	Generation int64
	Age        time.Duration // since the hub saw this generation
}

// Inputs tells what a spoke's part in a resource was made of. False when there is no such spoke.
func (r *Registry) Inputs(spoke string, k federate.Key) (Inputs, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[NamespacePrefix+spoke]
	if m == nil || m.spoke == nil {
		return Inputs{}, false
	}
	in := Inputs{ReportAge: -1, Session: m.belief.session, Complete: m.belief.complete}
	if m.report != nil {
		in.ReportAge = r.now().Sub(m.reportAt)
	}
	for _, e := range m.belief.declared[k.Namespace][k] {
		for _, name := range e.From {
			s := m.slices[name]
			in.Slices = append(in.Slices, SliceInput{Name: name, Generation: s.object.Generation, Age: r.now().Sub(s.seen)})
		}
	}
	slices.SortFunc(in.Slices, func(a, b SliceInput) int { return strings.Compare(a.Name, b.Name) })
	return in, true
}

// Spokes are the names of all Spokes, those being deleted among them, sorted.
func (r *Registry) Spokes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for m := range maps.Values(r.members) {
		if m.spoke != nil {
			out = append(out, m.spoke.Name)
		}
	}
	slices.Sort(out)
	return out
}

// Admitted returns a spoke that exists, is not being deleted, and has this identity.
func (r *Registry) Admitted(name, uid8 string) (federate.Spoke, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[NamespacePrefix+name]
	if m == nil || !m.admitted() {
		return federate.Spoke{}, false
	}
	s := m.model()
	return s, s.UID8 == uid8
}
