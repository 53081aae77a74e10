package delta

// cause is what makes a name worth judging again.
type cause struct {
	kind causeKind
	ref  Ref
}

type causeKind int

const (
	given  causeKind = iota // the client was sent or has acknowledged ref, or cannot be given it
	unused                  // the last that needs ref is gone
	known                   // what the client holds from an earlier stream is known; no ref
)

// await remembers what a name waits for, and nothing else that it waited for before.
func (s *session) await(t *typeState, name string, on cause) {
	o := t.at(name)
	o.waits = &on
	if s.waiting[on] == nil {
		s.waiting[on] = map[Ref]struct{}{}
	}
	s.waiting[on][Ref{t.url, name}] = struct{}{}
}

// unwait forgets what a name waits for.
func (s *session) unwait(t *typeState, name string) {
	o := t.odd[name]
	if o == nil || o.waits == nil {
		return
	}
	names := s.waiting[*o.waits]
	delete(names, Ref{t.url, name})
	if len(names) == 0 {
		delete(s.waiting, *o.waits)
	}
	o.waits = nil
	s.forgive(o)
}

// forgive notes that what has waited is owed no longer, or as something else.
func (s *session) forgive(o *oddity) {
	if o.owes {
		o.owes = false
		s.ledger.done(o.since)
	}
}

// wake has what waits for a cause judged again.
func (s *session) wake(on cause) {
	for w := range s.waiting[on] {
		t := s.types[w.Type]
		o := t.odd[w.Name]
		t.queue.pushSince(w.Name, o.since)
		o.waits = nil
		s.forgive(o)
	}
	delete(s.waiting, on)
}

// hold records what the client holds of a name now, for certain; nil is nothing.
func (s *session) hold(t *typeState, name string, r *Resource) {
	if r != nil {
		s.count(r.Needs, 1)
	}
	if old := t.held[name]; old != nil {
		s.count(old.Needs, -1)
	}
	if o := t.odd[name]; o != nil {
		for _, m := range o.maybe {
			s.count(m.Needs, -1)
		}
		if o.unknown && mayNeed(t.url) {
			s.unknown--
			s.wakeIfAllKnown()
		}
		o.maybe, o.unknown, o.empty, o.lost = nil, false, false, false
	}
	if r == nil {
		delete(t.held, name)
		return
	}
	t.held[name] = r
}

// mayNeed says whether resources of a type can need others: listeners and routes, not clusters and what is below them.
func mayNeed(typeURL string) bool { return rank(typeURL) >= rank(ListenerType) }

// count adds to the users of what is needed, and wakes what waits for the last user to go. Who needs an assignment needs
// its cluster.
func (s *session) count(needs []Ref, by int) {
	for _, n := range needs {
		s.use(n, by)
		if n.Type == AssignmentType {
			s.use(Ref{ClusterType, n.Name}, by)
		}
	}
}

func (s *session) use(n Ref, by int) {
	s.users[n] += by
	if s.users[n] == 0 {
		delete(s.users, n)
		s.wake(cause{kind: unused, ref: n})
	}
}

func (s *session) wakeIfAllKnown() {
	if s.unknown == 0 && s.answers {
		s.wake(cause{kind: known})
	}
}

// busy is why a resource that is gone must stay with the client for now. Clusters and what is below them also stay while
// the client holds, or may yet say that it holds, resources whose needs are unknown: a client sends all its
// subscriptions before it answers a response, so with the first answer everything that it holds has been told.
func (s *session) busy(t *typeState, name string) (on cause, busy bool) {
	if self := (Ref{t.url, name}); s.users[self] > 0 {
		return cause{unused, self}, true
	}
	if !mayNeed(t.url) && (s.unknown > 0 || !s.answers) {
		return cause{kind: known}, true
	}
	return cause{}, false
}

// unmet returns a need that the client does not hold or is about to lose, and whether it cannot be given it at all. A
// type to which the stream has not subscribed is not waited for.
func (s *session) unmet(needs []Ref) (on Ref, hopeless, unmet bool) {
	for _, n := range needs {
		if n.Type == AssignmentType {
			if c := s.types[ClusterType]; c != nil && c.subscribed && !s.hasCluster(c, n.Name) {
				return Ref{ClusterType, n.Name}, c.hopeless(n.Name), true
			}
		}
		if t := s.types[n.Type]; t != nil && t.subscribed && !t.has(n.Name) {
			return n, t.hopeless(n.Name), true
		}
	}
	return Ref{}, false, false
}

// hasCluster: the client has acknowledged the cluster; or it was sent it and has asked for the assignment by name, as
// Envoy does once it has a cluster, whose acknowledgement others may hold up.
func (s *session) hasCluster(c *typeState, name string) bool {
	if c.has(name) {
		return true
	}
	a := s.types[AssignmentType]
	return a != nil && a.names[name] && c.arriving(name)
}

// has says whether the client holds a resource and is not about to lose it.
func (t *typeState) has(name string) bool {
	if t.held[name] == nil {
		return false
	}
	o := t.odd[name]
	return o == nil || !o.lost && !o.empty && (o.flying == nil || o.flying.r != nil)
}

// arriving says whether a resource is on its way to the client.
func (t *typeState) arriving(name string) bool {
	o := t.odd[name]
	return o != nil && o.flying != nil && o.flying.r != nil
}

// hopeless says whether there is no resource that the client could be given.
func (t *typeState) hopeless(name string) bool {
	r, o := t.table.get(name), t.odd[name]
	return r == nil || o != nil && (o.stuck || o.refused && o.version == r.Version)
}
