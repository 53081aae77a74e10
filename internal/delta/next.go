package delta

import (
	"iter"
	"maps"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// verdict on a pending name.
type verdict int

const (
	skip   verdict = iota // the client has what it is to have
	wait                  // something else must happen first; it makes the name pending again
	send                  // send the resource
	remove                // tell that it is gone
)

// next builds the next response, or nil when there is nothing to send before the client answers or a table changes.
func (s *session) next() *discoveryv3.DeltaDiscoveryResponse {
	if s.bytes >= s.limits.inflightBytes {
		return nil
	}
	for _, t := range s.order {
		if t.subscribed {
			if r := s.build(t); r != nil {
				return r
			}
		}
	}
	return nil
}

// build makes the next response of one type. Additions and removals never share a response: a client may refuse the
// one and cannot refuse the other.
func (s *session) build(t *typeState) *discoveryv3.DeltaDiscoveryResponse {
	b := &batch{sent: map[string]hold{}}
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t.url}
	for name := range t.candidates() {
		v, r := s.judge(t, name)
		switch {
		case v == skip:
			delete(t.pending, name)
			delete(t.forced, name)
			s.settle(t, name)
		case v == wait:
			delete(t.pending, name)
		case v == remove && len(b.sent) == 0:
			s.takeRemoval(t, b, resp, name)
		case v == send && len(b.removed) == 0 && (len(b.sent) == 0 || !t.alone[name]):
			s.take(t, b, resp, r)
		}
		if b.bytes >= s.limits.chunkBytes || (t.url == ScopeType && len(b.sent) >= s.limits.chunkScopes) || (len(b.sent) == 1 && t.alone[name]) {
			break
		}
	}
	last := !t.told && len(t.unsent) == 0
	if len(b.sent)+len(b.removed) == 0 && !last {
		return nil
	}
	if last {
		t.told = true
		resp.SystemVersionInfo = Synced
	}
	b.nonce = s.nextNonce()
	resp.Nonce = b.nonce
	t.batches[b.nonce] = b
	s.bytes += b.bytes
	if s.events.pushed != nil {
		s.events.pushed(t.url, len(b.sent)+len(b.removed), b.bytes)
	}
	return resp
}

// candidates are the pending names: sorted while they are few, so that a small change goes out in one known order; as
// they come while they are many, since sorting them for each response would cost more than it is worth.
func (t *typeState) candidates() iter.Seq[string] {
	if len(t.pending) <= 1024 {
		return slices.Values(slices.Sorted(maps.Keys(t.pending)))
	}
	return maps.Keys(t.pending)
}

func (s *session) take(t *typeState, b *batch, resp *discoveryv3.DeltaDiscoveryResponse, r Resource) {
	resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
	_, known := t.table.Get(r.Name)
	b.sent[r.Name] = hold{version: r.Version, needs: r.Needs, empty: !known}
	b.bytes += r.size()
	s.count(r.Needs, 1)
	s.fly(t, b, r.Name)
	if t.url == ClusterType {
		s.sendAgain(AssignmentType, r.Name)
	}
}

func (s *session) takeRemoval(t *typeState, b *batch, resp *discoveryv3.DeltaDiscoveryResponse, name string) {
	resp.RemovedResources = append(resp.RemovedResources, name)
	b.removed = append(b.removed, name)
	b.bytes += len(name)
	s.fly(t, b, name)
}

func (s *session) fly(t *typeState, b *batch, name string) {
	t.flying[name] = b
	delete(t.pending, name)
	delete(t.forced, name)
	delete(t.unsent, name)
}

// sendAgain sends the assignment behind each change of its cluster, even in the version that the client has: Envoy
// warms a changed cluster only when the assignment comes again, and does not ask for it.
func (s *session) sendAgain(typeURL, name string) {
	t := s.types[typeURL]
	if t == nil || !t.subscribed || !t.wants(name) {
		return
	}
	if _, held := t.held[name]; held || t.flying[name] != nil {
		t.forced[name], t.pending[name] = true, true
	}
}

// judge decides on a pending name.
func (s *session) judge(t *typeState, name string) (verdict, Resource) {
	if t.flying[name] != nil {
		return wait, Resource{}
	}
	h, held := t.held[name]
	if !t.wants(name) {
		return skip, Resource{}
	}
	r, ok := t.lookup(name)
	if !ok {
		return s.judgeGone(t, name, held), Resource{}
	}
	if held && !h.empty && t.isEmpty(name) {
		// The assignment is gone and its cluster not yet: it is emptied only when nothing needs it any more.
		if s.judgeGone(t, name, held) == wait {
			return wait, Resource{}
		}
	}
	if (held && h.version == r.Version && h.empty == t.isEmpty(name) && !t.forced[name]) || t.quarantined[name] == r.Version {
		return skip, Resource{}
	}
	if on, unmet := s.unmet(r.Needs); unmet {
		s.await(on, Ref{t.url, name})
		return wait, Resource{}
	}
	return send, r
}

func (s *session) judgeGone(t *typeState, name string, held bool) verdict {
	if !held {
		if t.names[name] || t.forced[name] {
			return remove // asked for by name, and not there: say so
		}
		return skip
	}
	if !mayNeed(t.url) && (s.unknown > 0 || !s.answers) {
		delete(t.unsent, name) // Synced speaks of what is there, not of what is gone
		s.await(unknownRef, Ref{t.url, name})
		return wait
	}
	if self := (Ref{t.url, name}); s.users[self] > 0 {
		s.await(self, self)
		return wait
	}
	return remove
}

// unmet returns a need that the client does not hold, or is about to lose.
func (s *session) unmet(needs []Ref) (Ref, bool) {
	for _, n := range needs {
		t, c := s.types[n.Type], s.types[ClusterType]
		// Envoy subscribes to assignments only once it has a cluster: who takes clusters waits for their assignments.
		takesClusters := n.Type == AssignmentType && c != nil && c.subscribed
		if t == nil || !t.subscribed && !takesClusters {
			continue
		}
		h, held := t.held[n.Name]
		if !held || h.empty || t.leaving(n.Name) {
			return n, true
		}
		if takesClusters && !c.arriving(n.Name) {
			return Ref{ClusterType, n.Name}, true
		}
	}
	return Ref{}, false
}

// leaving says whether the removal of a name is in flight.
func (t *typeState) leaving(name string) bool {
	b := t.flying[name]
	if b == nil {
		return false
	}
	_, sent := b.sent[name]
	return !sent
}

// arriving says whether the client holds a name, or has been sent it: its acknowledgement may be held up by others.
func (t *typeState) arriving(name string) bool {
	if b := t.flying[name]; b != nil {
		_, sent := b.sent[name]
		return sent
	}
	_, held := t.held[name]
	return held
}

// lookup is the table's resource, or an empty assignment for a name that an Envoy asks for and the table lacks.
func (t *typeState) lookup(name string) (Resource, bool) {
	if r, ok := t.table.Get(name); ok {
		return r, true
	}
	if t.url == AssignmentType && t.names[name] {
		return emptyAssignment(name), true
	}
	return Resource{}, false
}

func (t *typeState) isEmpty(name string) bool {
	_, known := t.table.Get(name)
	return !known
}

// emptyAssignment answers an EDS subscription to a name that is not known: Envoy would wait for it.
func emptyAssignment(name string) Resource {
	r, err := NewResource(name, &endpointv3.ClusterLoadAssignment{ClusterName: name})
	if err != nil {
		panic(err) // a message without content that can fail to marshal does not exist
	}
	return r
}
