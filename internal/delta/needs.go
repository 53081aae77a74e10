package delta

import "strconv"

// keep records what the client holds of a name; the zero hold is nothing.
func (s *session) keep(t *typeState, name string, h hold) {
	if old, ok := t.held[name]; ok {
		s.count(old.needs, -1)
		if old.unknown && mayNeed(t.url) {
			s.unknown--
		}
	}
	if h.version == "" {
		delete(t.held, name)
		s.wakeAllIfKnown()
		return
	}
	t.held[name] = h
	s.count(h.needs, 1)
	if h.unknown && mayNeed(t.url) {
		s.unknown++
	}
	s.wakeAllIfKnown()
}

// mayNeed says whether resources of a type can need others: listeners and routes, not clusters and what is below them.
func mayNeed(typeURL string) bool { return rank(typeURL) >= rank(ListenerType) }

// count adds to the users of what is needed, and wakes what waits for the last user to go.
func (s *session) count(needs []Ref, by int) {
	for _, n := range needs {
		s.users[n] += by
		if n.Type == AssignmentType {
			s.users[Ref{ClusterType, n.Name}] += by
		}
		if s.users[n] <= 0 {
			delete(s.users, n)
			s.wake(n)
			if n.Type == AssignmentType {
				c := Ref{ClusterType, n.Name}
				if s.users[c] <= 0 {
					delete(s.users, c)
				}
				s.wake(c)
			}
		}
	}
}

// unknownRef is what removals of clusters and what is below them wait for while the client holds, or may yet say that it
// holds, resources whose needs are unknown. A client sends all its subscriptions before it answers a response, so with
// the first answer everything that it holds has been told.
var unknownRef = Ref{Type: "unknown"}

func (s *session) wakeAllIfKnown() {
	if s.unknown == 0 && s.answers {
		s.wake(unknownRef)
	}
}

// await remembers that a name is to be judged again when something happens to a resource.
func (s *session) await(on, name Ref) {
	if s.waiting[on] == nil {
		s.waiting[on] = map[Ref]bool{}
	}
	s.waiting[on][name] = true
}

// wake makes pending again what waits for a resource.
func (s *session) wake(on Ref) {
	for w := range s.waiting[on] {
		if t := s.types[w.Type]; t != nil {
			t.pending[w.Name] = true
		}
	}
	delete(s.waiting, on)
}

// settle notes that a resource of the initial state has been acknowledged, quarantined or given up.
func (s *session) settle(t *typeState, name string) {
	delete(t.initial, name)
	delete(t.unsent, name)
}

func (s *session) checkSettled(t *typeState) {
	if t.told && !t.settled && len(t.initial) == 0 {
		t.settled = true
		if s.events.synced != nil {
			s.events.synced(t.url)
		}
	}
}

// idle says whether the client has acknowledged all that it can be given now.
func (s *session) idle() bool {
	for _, t := range s.order {
		if len(t.batches) > 0 || len(t.pending) > 0 {
			return false
		}
	}
	return true
}

func (s *session) nextNonce() string {
	s.nonce++
	return strconv.FormatUint(s.nonce, 10)
}
