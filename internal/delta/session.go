package delta

import (
	"cmp"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Synced is the system_version_info of the response that ends the initial state of a type on a stream: with it the
// client has been sent all that the view held when the client subscribed, but for what it cannot be given (a table that
// needs a cluster which the client refuses). Envoy ignores the field; Client reads it.
const Synced = "synced"

// limits of one stream.
type limits struct {
	chunkBytes    int // of one response, about
	chunkScopes   int // route tables in one response: a batch of 1,000 blocks Envoy's main thread for 353 ms
	inflightBytes int // sent and not yet answered, per type: Envoy answers for clusters only once it has assignments
}

// session is the state of one stream, pure: requests and changes go in, responses come out.
type session struct {
	limits  limits
	types   map[string]*typeState
	order   []*typeState // by rank
	users   map[Ref]int  // how many resources that the client holds, may hold or is being sent need it
	unknown int          // resources held from an earlier stream in a version that is not ours: their needs are unknown
	answers bool         // a response was answered
	waiting map[cause]map[Ref]struct{}
	nonce   uint64
	events  events
	ledger  ledger
}

// events tell an observer what happened; nil functions are not called.
type events struct {
	pushed      func(typeURL string, resources, bytes int)
	acked       func(typeURL, name, version string)
	resumed     func(typeURL, name, version string)
	nacked      func(typeURL string, names []string, detail string)
	quarantined func(typeURL, name, version, detail string)
	synced      func(typeURL string)
}

// typeState is the state of one type on the stream.
type typeState struct {
	table      *Table
	url        string
	subscribed bool
	wildcard   bool
	names      map[string]bool // subscribed by name
	cursor     uint64
	held       map[string]*Resource // what the client acknowledged last
	odd        map[string]*oddity   // names that are not at rest
	queue      queue                // names to be judged
	batches    map[string]*batch    // in flight, by nonce
	inflight   int                  // bytes of batches
	initial    map[string]bool      // of the names at the subscription, those not settled; true: neither sent nor given up
	unsent     int                  // how many of initial are true
	told       bool                 // the response marked Synced was sent
	settled    bool                 // all of initial was acknowledged, refused or given up
}

// oddity is what there is to say of a name beyond what the client holds of it. At rest there is none, so that a stream
// costs one map entry for each name.
type oddity struct {
	flying  *flight
	maybe   []*Resource // refused together with others: the client may have applied any of them
	unknown bool        // held in a version that is not ours
	empty   bool        // held is an empty assignment, sent because the name was not known
	lost    bool        // the client may have lost what it held
	asked   bool        // an answer is due even if nothing changed
	alone   bool        // to be sent in a response of its own
	refused bool        // refused alone, in the version below ("": its removal)
	version string
	stuck   bool   // needs what the client cannot be given
	waits   *cause // what makes it worth judging again
	since   uint64 // of waits
	owes    bool   // it is owed since then, although it waits
}

// flight is a resource, or the news that there is none (nil), on its way to the client.
type flight struct {
	r       *Resource
	empty   bool
	since   uint64
	again   *uint64 // judge the name again when this is answered, which is owed since then
	dropped bool    // the client has unsubscribed since
	lost    bool    // the client loses it (its cluster is removed behind it)
}

// batch is one response in flight.
type batch struct {
	names []string
	bytes int
}

func newSession(v *View, l limits, e events) *session {
	s := &session{limits: l, types: map[string]*typeState{}, users: map[Ref]int{}, waiting: map[cause]map[Ref]struct{}{}, events: e, ledger: ledger{owed: map[uint64]int{}}}
	for _, t := range v.Tables {
		st := &typeState{table: t, url: t.typeURL, names: map[string]bool{}, held: map[string]*Resource{}, odd: map[string]*oddity{},
			queue: newQueue(&s.ledger), batches: map[string]*batch{}, initial: map[string]bool{}}
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
	if !t.subscribed {
		s.begin(t, r)
		return
	}
	if b := t.batches[r.GetResponseNonce()]; b != nil {
		s.answered(t, r.GetResponseNonce(), b, r.GetErrorDetail())
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		s.subscribe(t, name)
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		s.unsubscribe(t, name)
	}
}

// begin takes the first request of a type in: what the client wants, and what it holds from an earlier stream.
func (s *session) begin(t *typeState, r *discoveryv3.DeltaDiscoveryRequest) {
	t.subscribed = true
	t.cursor = t.table.end()
	t.wildcard = len(r.GetResourceNamesSubscribe()) == 0
	for _, name := range r.GetResourceNamesSubscribe() {
		if name == "*" {
			t.wildcard = true
			continue
		}
		t.names[name] = true
		t.queue.push(name)
		if _, held := r.GetInitialResourceVersions()[name]; !held {
			t.at(name).asked = true
		}
	}
	if t.wildcard {
		for _, name := range t.table.Names() {
			t.queue.push(name)
		}
	}
	for name, version := range r.GetInitialResourceVersions() {
		if t.wants(name) {
			s.resume(t, name, version)
		}
	}
	for name := range t.queue.in {
		t.initial[name] = true
	}
	t.unsent = len(t.initial)
}

// resume takes over what the client holds from an earlier stream.
func (s *session) resume(t *typeState, name, version string) {
	t.queue.push(name)
	r := t.table.get(name)
	switch {
	case r != nil && r.Version == version:
		s.hold(t, name, r)
		if s.events.resumed != nil {
			s.events.resumed(t.url, name, version)
		}
	case r == nil && t.url == AssignmentType && t.names[name] && emptyAssignment(name).Version == version:
		s.hold(t, name, emptyAssignment(name))
		t.at(name).empty = true
	default:
		s.hold(t, name, &Resource{Name: name, Version: version})
		t.at(name).unknown = true
		if mayNeed(t.url) {
			s.unknown++
		}
	}
}

func (s *session) subscribe(t *typeState, name string) {
	if name == "*" {
		t.wildcard = true
		for _, n := range t.table.Names() {
			t.queue.push(n)
		}
		return
	}
	t.names[name] = true
	t.queue.push(name)
	// A client that names again what it holds has lost it (a cluster removed and added): send it again.
	o := t.at(name)
	o.asked = true
	o.lost = t.held[name] != nil
	if o.flying != nil {
		o.flying.lost = true
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
		for n := range t.odd {
			if !t.names[n] {
				s.drop(t, n)
			}
		}
		return
	}
	delete(t.names, name)
	if t.wildcard { // the protocol asks to say whether it is still there
		t.at(name).asked = true
		t.queue.push(name)
		return
	}
	s.drop(t, name)
}

// drop forgets what the client has itself given up.
func (s *session) drop(t *typeState, name string) {
	s.hold(t, name, nil)
	if o := t.odd[name]; o != nil {
		s.unwait(t, name)
		f := o.flying
		*o = oddity{flying: f}
		if f != nil {
			f.dropped = true
		}
		t.tidy(name)
	}
	s.settle(t, name)
}

// changed takes in what happened to the tables since the last call.
func (s *session) changed() {
	for _, t := range s.order {
		if !t.subscribed {
			continue
		}
		names, next, ok := t.table.Since(t.cursor)
		t.cursor = next
		if !ok {
			names = t.table.Names()
		}
		for _, n := range names {
			if t.wants(n) {
				t.queue.push(n)
			}
		}
		if !ok { // and what is gone
			for n := range t.held {
				t.queue.push(n)
			}
			for n := range t.odd {
				t.queue.push(n)
			}
		}
	}
}

func (t *typeState) wants(name string) bool { return t.wildcard || t.names[name] }

// at is the oddity of a name, made if there is none.
func (t *typeState) at(name string) *oddity {
	o := t.odd[name]
	if o == nil {
		o = &oddity{}
		t.odd[name] = o
	}
	return o
}

// tidy drops the oddity of a name that is at rest.
func (t *typeState) tidy(name string) {
	o := t.odd[name]
	if o != nil && o.flying == nil && len(o.maybe) == 0 && o.waits == nil && !o.unknown && !o.empty && !o.lost && !o.asked && !o.alone && !o.refused && !o.stuck {
		delete(t.odd, name)
	}
}

// mark notes what the client can be given now. It is settled when the client has answered for all of that, or for what came after it
// under the same name, whatever else has changed meanwhile.
func (s *session) mark() uint64 {
	s.changed()
	return s.ledger.next()
}
