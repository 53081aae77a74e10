package delta

import (
	"cmp"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// Synced is the system_version_info of the response that ends the initial state of a type on a stream: with it the
// client has been sent all that the view held when the client subscribed. Envoy ignores the field; Client reads it.
const Synced = "synced"

// limits of one stream.
type limits struct {
	chunkBytes    int // of one response, about
	chunkScopes   int // route tables in one response: a batch of 1,000 blocks Envoy's main thread for 353 ms
	inflightBytes int // sent and not yet acknowledged
}

// session is the state of one stream, pure: requests and changes go in, responses come out.
type session struct {
	limits  limits
	types   map[string]*typeState
	order   []*typeState // by rank
	users   map[Ref]int  // how many held or in-flight resources need it
	answers bool         // a response was answered
	unknown int          // resources held from an earlier stream in a version that is not ours: their needs are unknown
	waiting map[Ref]map[Ref]bool
	bytes   int
	nonce   uint64
	events  events
}

// events tell an observer what happened; nil functions are not called.
type events struct {
	pushed      func(typeURL string, resources, bytes int)
	acked       func(typeURL, name, version string)
	nacked      func(typeURL string, names []string, detail string)
	quarantined func(typeURL, name, version, detail string)
	synced      func(typeURL string)
}

// hold is what a client holds of a resource.
type hold struct {
	version string
	needs   []Ref
	unknown bool // held from an earlier stream in a version that is not ours
	empty   bool // an empty assignment, sent because the name was not known
}

// typeState is the state of one type on the stream.
type typeState struct {
	table       *Table
	url         string
	subscribed  bool
	wildcard    bool
	names       map[string]bool // subscribed by name
	cursor      uint64
	held        map[string]hold
	flying      map[string]*batch // by name
	batches     map[string]*batch // by nonce
	pending     map[string]bool   // may differ from what the client has
	forced      map[string]bool   // to be sent even in the version that the client has
	alone       map[string]bool   // to be sent in a response of its own
	quarantined map[string]string // name -> version that the client refused alone
	initial     map[string]bool   // not yet settled since the subscription
	unsent      map[string]bool   // of initial: not yet sent
	greeted     bool              // a response was sent
	told        bool              // the response marked Synced was sent
	settled     bool              // all of initial was acknowledged or quarantined
}

// batch is one response in flight.
type batch struct {
	nonce   string
	sent    map[string]hold
	removed []string
	bytes   int
}

func newSession(v *View, l limits, e events) *session {
	s := &session{limits: l, types: map[string]*typeState{}, users: map[Ref]int{}, waiting: map[Ref]map[Ref]bool{}, events: e}
	for _, t := range v.Tables {
		st := &typeState{
			table: t, url: t.typeURL, names: map[string]bool{}, held: map[string]hold{}, flying: map[string]*batch{},
			batches: map[string]*batch{}, pending: map[string]bool{}, forced: map[string]bool{}, alone: map[string]bool{},
			quarantined: map[string]string{}, initial: map[string]bool{}, unsent: map[string]bool{},
		}
		s.types[t.typeURL] = st
		s.order = append(s.order, st)
	}
	slices.SortStableFunc(s.order, func(a, b *typeState) int { return cmp.Compare(rank(a.url), rank(b.url)) })
	return s
}

// request takes a request in. A type that the view lacks is ignored, as the protocol asks.
func (s *session) request(r *discoveryv3.DeltaDiscoveryRequest) {
	t := s.types[r.GetTypeUrl()]
	if t == nil {
		return
	}
	first := !t.subscribed
	if first {
		t.subscribed = true
		_, t.cursor, _ = t.table.since(0)
		s.resume(t, r.GetInitialResourceVersions())
	}
	if b := t.batches[r.GetResponseNonce()]; b != nil {
		s.answered(t, b, r.GetErrorDetail())
	}
	if first && len(r.GetResourceNamesSubscribe()) == 0 {
		s.subscribe(t, "*", first)
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		s.subscribe(t, name, first)
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		s.unsubscribe(t, name)
	}
	if first {
		t.unsent = make(map[string]bool, len(t.pending))
		for name := range t.pending {
			t.initial[name], t.unsent[name] = true, true
		}
	}
}

// resume takes over what the client holds from an earlier stream.
func (s *session) resume(t *typeState, versions map[string]string) {
	for name, version := range versions {
		h := hold{version: version, unknown: true}
		if r, ok := t.table.Get(name); ok && r.Version == version {
			h = hold{version: version, needs: r.Needs}
		}
		s.keep(t, name, h)
		t.pending[name] = true
	}
}

func (s *session) subscribe(t *typeState, name string, first bool) {
	if name == "*" {
		t.wildcard = true
		for _, n := range t.table.Names() {
			t.pending[n] = true
		}
		return
	}
	t.names[name] = true
	t.pending[name] = true
	if !first {
		// A client that names again what it holds has lost it (a cluster removed and added): send it again.
		t.forced[name] = true
	}
}

func (s *session) unsubscribe(t *typeState, name string) {
	if name == "*" {
		t.wildcard = false
		for n := range t.held {
			if !t.names[n] {
				s.drop(t, n)
			}
		}
		return
	}
	delete(t.names, name)
	if t.wildcard {
		t.pending[name] = true // the protocol asks to say whether it is still there
		t.forced[name] = true
		return
	}
	s.drop(t, name)
}

// drop forgets what the client has itself given up.
func (s *session) drop(t *typeState, name string) {
	s.keep(t, name, hold{})
	delete(t.pending, name)
	delete(t.forced, name)
	s.settle(t, name)
	s.checkSettled(t)
}

// changed takes in what happened to the tables since the last call.
func (s *session) changed() {
	for _, t := range s.order {
		if !t.subscribed {
			continue
		}
		names, next, ok := t.table.since(t.cursor)
		if !ok {
			names = t.table.Names()
			for n := range t.held {
				t.pending[n] = true
			}
		}
		t.cursor = next
		for _, n := range names {
			if t.wants(n) {
				t.pending[n] = true
			}
		}
	}
}

func (t *typeState) wants(name string) bool { return t.wildcard || t.names[name] }

// answered takes in an ACK or, with a detail, a NACK.
func (s *session) answered(t *typeState, b *batch, detail *rpcstatus.Status) {
	delete(t.batches, b.nonce)
	s.bytes -= b.bytes
	if !s.answers {
		s.answers = true
		s.wakeAllIfKnown()
	}
	if detail != nil {
		s.refused(t, b, detail.GetMessage())
		return
	}
	for name, h := range b.sent {
		delete(t.flying, name)
		delete(t.alone, name)
		if t.wants(name) {
			s.keep(t, name, h)
		}
		s.count(h.needs, -1)
		if s.events.acked != nil {
			s.events.acked(t.url, name, h.version)
		}
		if r, ok := t.lookup(name); !ok || r.Version != h.version || t.forced[name] {
			t.pending[name] = true
		}
		s.settle(t, name)
		s.wake(Ref{t.url, name})
	}
	s.removed(t, b)
	s.checkSettled(t)
}

// removed takes in that the client has dropped what it was told to; a client cannot refuse a removal.
func (s *session) removed(t *typeState, b *batch) {
	for _, name := range b.removed {
		delete(t.flying, name)
		s.keep(t, name, hold{})
		if _, ok := t.lookup(name); ok {
			t.pending[name] = true
		}
		if a := s.types[AssignmentType]; t.url == ClusterType && a != nil && !a.wildcard {
			s.keep(a, name, hold{}) // Envoy drops the assignment with its cluster, and asks again for the next one
		}
		s.settle(t, name)
		s.wake(Ref{t.url, name})
	}
}

// refused takes a refused response apart: each resource is sent alone; one that was alone is quarantined.
func (s *session) refused(t *typeState, b *batch, detail string) {
	names := make([]string, 0, len(b.sent))
	for name := range b.sent {
		names = append(names, name)
	}
	slices.Sort(names)
	if s.events.nacked != nil {
		s.events.nacked(t.url, names, detail)
	}
	for _, name := range names {
		delete(t.flying, name)
		s.count(b.sent[name].needs, -1)
		t.pending[name] = true
		if len(names) > 1 {
			t.alone[name] = true
			continue
		}
		delete(t.alone, name)
		t.quarantined[name] = b.sent[name].version
		if s.events.quarantined != nil {
			s.events.quarantined(t.url, name, b.sent[name].version, detail)
		}
		s.settle(t, name)
	}
	s.removed(t, b)
	s.checkSettled(t)
}
