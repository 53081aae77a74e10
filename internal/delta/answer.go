package delta

import (
	"slices"
	"strconv"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// answered takes in an ACK or, with a detail, a NACK.
func (s *session) answered(t *typeState, nonce string, b *batch, detail *rpcstatus.Status) {
	delete(t.batches, nonce)
	t.inflight -= b.bytes
	if !s.answers {
		s.answers = true
		s.wakeIfAllKnown()
	}
	switch {
	case detail == nil:
		for _, name := range b.names {
			s.accepted(t, name)
		}
	case len(b.names) > 0:
		s.refused(t, b, detail.GetMessage())
	}
	s.checkSettled(t)
}

func (s *session) accepted(t *typeState, name string) {
	o := t.odd[name]
	f := o.flying
	o.flying = nil
	if !f.dropped {
		o.refused, o.alone = false, false
		s.hold(t, name, f.r)
		o.empty = f.empty
		o.lost = f.lost && f.r != nil
	}
	if f.r != nil {
		s.count(f.r.Needs, -1)
		if s.events.acked != nil {
			s.events.acked(t.url, name, f.r.Version)
		}
	}
	s.wakeUsers(t, name)
	s.rest(t, name, f, o.asked)
}

// wakeUsers has those judged again who wait for a name. Who waits for an assignment may wait for its cluster first, and
// for a cluster, that its assignment is asked for.
func (s *session) wakeUsers(t *typeState, name string) {
	s.wake(cause{given, Ref{t.url, name}})
	switch t.url {
	case ClusterType:
		s.wake(cause{given, Ref{AssignmentType, name}})
	case AssignmentType:
		s.wake(cause{given, Ref{ClusterType, name}})
	}
}

// rest ends a flight: the name is judged again, or it is settled.
func (s *session) rest(t *typeState, name string, f *flight, again bool) {
	s.ledger.done(f.since)
	switch {
	case f.again != nil:
		t.queue.pushSince(name, *f.again)
		s.ledger.done(*f.again)
	case again:
		t.queue.push(name)
	default:
		s.settle(t, name)
	}
	t.tidy(name)
}

// refused takes a refused response apart: each resource is sent alone, at once; one that was alone is quarantined.
func (s *session) refused(t *typeState, b *batch, detail string) {
	slices.Sort(b.names)
	if s.events.nacked != nil {
		s.events.nacked(t.url, b.names, detail)
	}
	var alone []owing
	for _, name := range b.names {
		o := t.odd[name]
		f := o.flying
		o.flying = nil
		switch {
		case f.dropped:
			s.release(f.r)
			s.rest(t, name, f, true)
		case len(b.names) > 1:
			doubt(o, f)
			s.ledger.done(f.since)
			if f.again != nil {
				s.ledger.done(*f.again)
			}
			alone = append(alone, owing{name, f.since})
		default:
			s.quarantine(t, name, o, f, detail)
		}
	}
	t.queue.ahead(alone...)
}

// doubt notes that a client which refused a response may have applied this part of it: what that needs stays in use.
func doubt(o *oddity, f *flight) {
	o.alone = true
	o.lost = o.lost || f.lost
	if f.r == nil {
		o.lost, o.asked = true, true
		return
	}
	o.maybe = append(o.maybe, f.r)
}

// quarantine notes that a client refuses a resource in this version (or its removal): it is not sent again.
func (s *session) quarantine(t *typeState, name string, o *oddity, f *flight, detail string) {
	o.alone, o.refused, o.version = false, true, ""
	if f.r == nil {
		o.lost, o.asked = true, true
	} else {
		o.version = f.r.Version
		s.release(f.r)
		o.maybe = slices.DeleteFunc(o.maybe, func(r *Resource) bool { // what is refused alone was not applied with others either
			if r.Version != f.r.Version {
				return false
			}
			s.release(r)
			return true
		})
	}
	if s.events.quarantined != nil {
		s.events.quarantined(t.url, name, o.version, detail)
	}
	s.wakeUsers(t, name)
	s.settle(t, name)
	s.rest(t, name, f, false)
}

func (s *session) release(r *Resource) {
	if r != nil {
		s.count(r.Needs, -1)
	}
}

// dispatched notes that a resource of the initial state was sent, or will not be.
func (t *typeState) dispatched(name string) {
	if t.initial[name] {
		t.initial[name] = false
		t.unsent--
	}
}

// settle notes that a resource of the initial state has been acknowledged, refused or given up.
func (s *session) settle(t *typeState, name string) {
	if len(t.initial) > 0 {
		t.dispatched(name)
		delete(t.initial, name)
		s.checkSettled(t)
	}
}

func (s *session) checkSettled(t *typeState) {
	if t.told && !t.settled && len(t.initial) == 0 {
		t.settled = true
		if s.events.synced != nil {
			s.events.synced(t.url)
		}
	}
}

func (s *session) nextNonce() string {
	s.nonce++
	return strconv.FormatUint(s.nonce, 10)
}
