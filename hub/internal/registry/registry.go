package registry

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// NamespacePrefix and a spoke's name make the name of its namespace on the hub.
	NamespacePrefix = "isthmus-spoke-"
	// OwnerAnnotation of that namespace holds the UID of its Spoke.
	OwnerAnnotation = "isthmus.dev/spoke-uid"
)

// Registry holds what the spokes declare. It is safe for concurrent use.
type Registry struct {
	now    func() time.Time
	limits Limits

	mu       sync.Mutex
	members  map[string]*member            // by namespace on the hub; objects may arrive in any order
	policies map[string]map[string]*policy // by namespace and name
	dirty    namespaces
	fleet    bool // the spokes themselves changed
	taken    bool // Take was called: from now on budgets count
	wake     chan struct{}
	backlog  chan struct{}
}

// member is one spoke with everything in its namespace.
type member struct {
	spoke    *v1alpha1.Spoke
	owner    types.UID // as the namespace's annotation says, or said before it was lost
	lost     bool      // the namespace of a Spoke that exists is gone, or says no owner: what was declared in it is held
	report   *v1alpha1.SpokeReport
	reportAt time.Time
	inbox    inbox
	slices   map[string]*slice               // as they were taken in
	shares   map[string]share                // what each uses of the limits
	used     usage                           // slices and bytes; entries are the belief's total
	refused  int                             // entries, for a limit
	invalid  int                             // entries that break a rule
	reserved map[federate.Key]federate.Entry // see reserve; only while a batch is taken in
	belief   *belief
	of       types.UID // whose belief it is
	unsure   bool      // slices or report changed since they were last compared
	liveness Liveness
}

type slice struct {
	object   *v1alpha1.AgentSlice
	seen     time.Time
	rejected []v1alpha1.SliceEntryStatus
	refused  int // of those, for a limit
}

// invalid counts the entries that break a rule; 0 for nil.
func (s *slice) invalid() int {
	if s == nil {
		return 0
	}
	return len(s.rejected) - s.refused
}

// Liveness is what is known of a spoke beside its declarations.
type Liveness struct {
	Lease   federate.Lease
	Removed bool
	Routers []netip.AddrPort
}

// New returns an empty registry with DefaultLimits. now is the hub's clock, for budgets and the ages that Inputs tells.
func New(now func() time.Time) *Registry { return NewLimited(now, DefaultLimits()) }

// NewLimited returns an empty registry.
func NewLimited(now func() time.Time, l Limits) *Registry {
	return &Registry{
		now: now, limits: l, members: map[string]*member{}, policies: map[string]map[string]*policy{}, dirty: namespaces{}, wake: make(chan struct{}, 1), backlog: make(chan struct{}, 1),
	}
}

// Changed holds a value when Take has something new.
func (r *Registry) Changed() <-chan struct{} { return r.wake }

func (r *Registry) touch(fleet bool, shards namespaces) {
	r.fleet = r.fleet || fleet
	maps.Copy(r.dirty, shards)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Registry) member(namespace string) *member {
	m, ok := r.members[namespace]
	if !ok {
		m = &member{slices: map[string]*slice{}, shares: map[string]share{}, belief: newBelief()}
		r.members[namespace] = m
	}
	return m
}

// forget drops a member of which nothing is left.
func (r *Registry) forget(namespace string) {
	if m := r.members[namespace]; m != nil && m.spoke == nil && m.owner == "" && m.report == nil && len(m.slices) == 0 && m.inbox.count == 0 {
		delete(r.members, namespace)
	}
}

// active says whether the member's declarations count: the Spoke exists, is not being deleted, and owns the namespace.
func (m *member) active() bool {
	return m.admitted() && m.owner == m.spoke.UID
}

// admitted says whether the Spoke exists and is not being deleted.
func (m *member) admitted() bool {
	return m.spoke != nil && m.spoke.DeletionTimestamp.IsZero()
}

// SetSpoke takes in a Spoke as it is now.
func (r *Registry) SetSpoke(s *v1alpha1.Spoke) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(NamespacePrefix + s.Name)
	old := m.spoke
	was := m.active()
	m.spoke = s
	if old != nil && old.UID == s.UID && was == m.active() && old.Generation == s.Generation && uid8(old) == uid8(s) {
		return // its status, of which we read nothing else
	}
	r.reread(m)
	r.touch(true, m.belief.all())
}

// DeleteSpoke takes in that a Spoke is gone.
func (r *Registry) DeleteSpoke(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(NamespacePrefix + name)
	shards := m.belief.all()
	m.spoke = nil
	if m.lost {
		m.owner, m.lost = "", false
	}
	r.reread(m)
	r.touch(true, shards)
	r.forget(NamespacePrefix + name)
}

// SetNamespace takes in whose namespace it says to be; "" for nobody's, or gone.
func (r *Registry) SetNamespace(namespace string, owner types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.members[namespace]; !ok && owner == "" {
		return
	}
	m := r.member(namespace)
	if owner == "" && m.active() {
		r.lose(m)
		return
	}
	m.lost = false
	if m.owner == owner {
		return
	}
	m.owner = owner
	shards := m.belief.all()
	r.reread(m)
	maps.Copy(shards, m.belief.all())
	r.touch(true, shards)
	r.forget(namespace)
}

// lose notes that the namespace of a Spoke that exists is gone, or no longer says whose it is. Somebody deleted it, or took its
// label off: the spoke itself has withdrawn nothing, so what it declared is held until report and slices agree again.
func (r *Registry) lose(m *member) {
	m.lost, m.unsure = true, true
	m.belief.doubt()
	r.touch(true, nil)
}

// SetSlice notes an AgentSlice as it is now; Take takes it in.
func (r *Registry) SetSlice(s *v1alpha1.AgentSlice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(s.Namespace)
	known, waits := m.inbox.latest(s.Name)
	if !waits {
		known = m.slices[s.Name]
	}
	if sameObject(known, s) {
		return // its status, which we do not read
	}
	m.inbox.put(s.Spec.SourceNamespace, s.Name, &slice{object: s, seen: r.now()})
	r.signal(m)
}

// DeleteSlice notes that an AgentSlice is gone.
func (r *Registry) DeleteSlice(namespace, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(namespace)
	known, waits := m.inbox.latest(name)
	if !waits || known == nil {
		known = m.slices[name]
	}
	if known == nil {
		r.forget(namespace)
		return
	}
	m.inbox.put(known.object.Spec.SourceNamespace, name, nil)
	r.signal(m)
}

// signal wakes who takes in: at once, or in the spoke's turn when it changes faster than its budget.
func (r *Registry) signal(m *member) {
	m.unsure = true
	if !r.taken || m.inbox.judge(r.limits.ChangeRate, r.now()) {
		r.touch(false, nil)
		return
	}
	select {
	case r.backlog <- struct{}{}:
	default:
	}
}

// SetReport takes in a SpokeReport as it is now. A report that names another spoke counts as none.
func (r *Registry) SetReport(report *v1alpha1.SpokeReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(report.Namespace)
	if NamespacePrefix+report.Spec.Spoke != report.Namespace {
		report = nil
	}
	r.setReport(m, report)
}

// DeleteReport takes in that a spoke's report is gone.
func (r *Registry) DeleteReport(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setReport(r.member(namespace), nil)
	r.forget(namespace)
}

func (r *Registry) setReport(m *member, report *v1alpha1.SpokeReport) {
	m.report, m.reportAt, m.unsure = report, r.now(), true
	session := ""
	if report != nil {
		session = report.Spec.Session
	}
	was := m.belief.complete
	if m.belief.report(session); !m.belief.complete {
		r.touch(was, nil) // compare at the next Take
	}
}

// reread judges all slices of a member again, after a change of its Spoke or of the owner of its namespace.
func (r *Registry) reread(m *member) {
	if m.spoke == nil || m.of != m.spoke.UID { // another spoke of the same name: what its predecessor declared is nothing
		session := m.belief.session
		r.touch(true, m.belief.all())
		m.belief, m.shares, m.used, m.refused = newBelief(), map[string]share{}, usage{}, 0
		m.belief.report(session)
		m.of, m.unsure = "", true
		if m.spoke != nil {
			m.of = m.spoke.UID
		}
	}
	if m.spoke == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.slices)) {
		r.touch(false, r.read(m, name))
	}
	r.touch(false, m.belief.forbid(func(ns string) bool { return Allowed(m.spoke.Spec.Namespaces, ns) }))
}

// read judges one slice.
func (r *Registry) read(m *member, name string) namespaces {
	if m.spoke == nil {
		return nil
	}
	s := m.slices[name]
	accepted, rejected := Validate(m.spoke, name, &s.object.Spec)
	keys := make(map[federate.Key]bool, len(rejected))
	for _, e := range rejected {
		if e.Reason != v1alpha1.SliceDuplicateEntry {
			keys[federate.Key{Namespace: s.object.Spec.SourceNamespace, Type: v1alpha1.ResourceType(e.Type), Name: e.Name}] = true
		}
	}
	accepted, over := m.admit(name, r.limits, accepted)
	m.invalid += len(rejected) - s.invalid()
	s.rejected, s.refused = append(rejected, over...), len(over)
	return m.belief.declare(name, accepted, keys)
}

// compare lets a spoke become complete when its report and its slices agree.
func (r *Registry) compare(m *member) {
	if !m.unsure || m.lost || m.belief.complete || m.report == nil || !m.active() || m.inbox.count > 0 {
		return
	}
	m.unsure = false
	specs := make([]v1alpha1.AgentSliceSpec, 0, len(m.slices))
	for _, s := range m.slices {
		specs = append(specs, s.object.Spec)
	}
	count, hash := digest.Of(specs)
	if want := m.report.Spec.Slices; want.Count != nil && *want.Count == count && want.Hash == hash {
		r.fleet = true
		before := usage{m.belief.total, m.used.slices, m.used.bytes}
		maps.Copy(r.dirty, m.belief.agree())
		if m.retry(before); m.inbox.count > 0 {
			r.signal(m)
		}
	}
}

// spoke is the member as federate sees it.
func (m *member) model() federate.Spoke {
	s := m.spoke
	out := federate.Spoke{
		Name: s.Name, UID8: uid8(s), UID: string(s.UID), Created: s.CreationTimestamp.Time, Draining: s.Spec.State == v1alpha1.SpokeDraining,
		Lease: m.liveness.Lease, Removed: m.liveness.Removed, Routers: m.liveness.Routers,
	}
	if l := s.Spec.Location; l != nil {
		out.Region, out.Zone = l.Region, l.Zone
		lat, errLat := strconv.ParseFloat(l.Latitude, 64)
		lon, errLon := strconv.ParseFloat(l.Longitude, 64)
		if errLat == nil && errLon == nil {
			out.Point = &federate.Point{Latitude: lat, Longitude: lon}
		}
	}
	return out
}

func uid8(s *v1alpha1.Spoke) string { return identity.UID8Of(s.Name, s.UID, s.Status.Identity) }
