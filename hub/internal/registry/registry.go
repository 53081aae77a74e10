package registry

import (
	"maps"
	"net/netip"
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
	now func() time.Time

	mu      sync.Mutex
	members map[string]*member // by namespace on the hub; objects may arrive in any order
	dirty   namespaces
	fleet   bool // the spokes themselves changed
	wake    chan struct{}
}

// member is one spoke with everything in its namespace.
type member struct {
	spoke    *v1alpha1.Spoke
	owner    types.UID // as the namespace's annotation says
	report   *v1alpha1.SpokeReport
	reportAt time.Time
	slices   map[string]*slice
	belief   *belief
	of       types.UID // whose belief it is
	unsure   bool      // slices or report changed since they were last compared
	liveness Liveness
}

type slice struct {
	object   *v1alpha1.AgentSlice
	seen     time.Time
	rejected []v1alpha1.SliceEntryStatus
}

// Liveness is what is known of a spoke beside its declarations.
type Liveness struct {
	Lease   federate.Lease
	Routers []netip.AddrPort
}

// New returns an empty registry. now is the hub's clock, used for the ages that Inputs tells.
func New(now func() time.Time) *Registry {
	return &Registry{now: now, members: map[string]*member{}, dirty: namespaces{}, wake: make(chan struct{}, 1)}
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
		m = &member{slices: map[string]*slice{}, belief: newBelief()}
		r.members[namespace] = m
	}
	return m
}

// forget drops a member of which nothing is left.
func (r *Registry) forget(namespace string) {
	if m := r.members[namespace]; m != nil && m.spoke == nil && m.owner == "" && m.report == nil && len(m.slices) == 0 {
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
	if old != nil && old.UID == s.UID && was == m.active() && old.Generation == s.Generation {
		return // its status, which we do not read
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

// SetSlice takes in an AgentSlice as it is now.
func (r *Registry) SetSlice(s *v1alpha1.AgentSlice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(s.Namespace)
	if old := m.slices[s.Name]; old != nil && old.object.UID == s.UID && old.object.Generation == s.Generation {
		return // its status, which we do not read
	}
	m.slices[s.Name] = &slice{object: s, seen: r.now()}
	m.unsure = true
	r.touch(false, r.read(m, s.Name))
}

// DeleteSlice takes in that an AgentSlice is gone.
func (r *Registry) DeleteSlice(namespace, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.member(namespace)
	delete(m.slices, name)
	m.unsure = true
	r.touch(false, m.belief.declare(name, nil, nil))
	r.forget(namespace)
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
		m.belief = newBelief()
		m.belief.report(session)
		m.of, m.unsure = "", true
		if m.spoke != nil {
			m.of = m.spoke.UID
		}
	}
	if m.spoke == nil {
		return
	}
	for name := range m.slices {
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
	s.rejected = rejected
	keys := make(map[federate.Key]bool, len(rejected))
	for _, e := range rejected {
		if e.Reason != v1alpha1.SliceDuplicateEntry {
			keys[federate.Key{Namespace: s.object.Spec.SourceNamespace, Type: v1alpha1.ResourceType(e.Type), Name: e.Name}] = true
		}
	}
	return m.belief.declare(name, accepted, keys)
}

// compare lets a spoke become complete when its report and its slices agree.
func (r *Registry) compare(m *member) {
	if !m.unsure || m.belief.complete || m.report == nil || !m.active() {
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
		maps.Copy(r.dirty, m.belief.agree())
	}
}

// spoke is the member as federate sees it.
func (m *member) model() federate.Spoke {
	s := m.spoke
	out := federate.Spoke{
		Name: s.Name, UID8: identity.UID8(s.UID), Created: s.CreationTimestamp.Time, Draining: s.Spec.State == v1alpha1.SpokeDraining,
		Lease: m.liveness.Lease, Routers: m.liveness.Routers,
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
