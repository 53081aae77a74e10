package delta

import (
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// next builds the next response, or nil when there is nothing to send before the client answers or a table changes.
func (s *session) next() *discoveryv3.DeltaDiscoveryResponse {
	for _, t := range s.order {
		if t.subscribed && t.inflight < s.limits.inflightBytes {
			if r := s.build(t); r != nil {
				return r
			}
		}
	}
	return nil
}

// nothing is a response without content, of the first type that the client has subscribed to; nil if there is none.
func (s *session) nothing() *discoveryv3.DeltaDiscoveryResponse {
	for _, t := range s.order {
		if t.subscribed {
			return &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t.url, Nonce: s.nextNonce()}
		}
	}
	return nil
}

// build makes the next response of one type. Additions and removals never share a response, so that a refusal is of the
// one or the other.
func (s *session) build(t *typeState) *discoveryv3.DeltaDiscoveryResponse {
	b, resp := &batch{}, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t.url}
	var other []owing // of the other kind: they go into the next response
	for b.bytes < s.limits.chunkBytes && len(b.names) < s.most(t, resp) && len(other) < s.limits.chunkScopes {
		next, ok := t.queue.pop()
		if !ok {
			break
		}
		name := next.name
		o := t.odd[name]
		alone := o != nil && o.alone
		if alone && len(b.names) > 0 {
			s.putBack(t, next)
			break
		}
		f := s.judgeOwed(t, &next)
		if f == nil {
			t.tidy(name)
			continue
		}
		if len(b.names) > 0 && (f.r == nil) != (len(resp.RemovedResources) > 0) {
			other = append(other, next)
			continue
		}
		s.launch(t, b, resp, name, f)
		if alone {
			break
		}
	}
	s.putBack(t, other...)
	return s.dispatch(t, b, resp)
}

// putBack queues again, at the front, what was popped.
func (s *session) putBack(t *typeState, all ...owing) {
	t.queue.ahead(all...)
	for _, o := range all {
		s.ledger.done(o.since)
	}
}

// judgeOwed judges a name that was popped. What is not sent is owed no longer, or by what it waits for: the flight that is to be
// answered first, or a cause.
func (s *session) judgeOwed(t *typeState, next *owing) *flight {
	if o := t.odd[next.name]; o != nil && o.waits != nil && o.since < next.since {
		s.ledger.move(next.since, o.since)
		next.since = o.since
	}
	f := s.judge(t, next.name)
	if f != nil {
		f.since = next.since
		return f
	}
	o := t.odd[next.name]
	switch {
	case o != nil && o.flying != nil && o.flying.again == nil:
		o.flying.again = &next.since // owed still
		return nil
	case o != nil && o.flying != nil && next.since < *o.flying.again:
		s.ledger.move(*o.flying.again, next.since)
		*o.flying.again = next.since
	case o != nil && o.waits != nil:
		o.since, o.owes = next.since, o.waits.kind == given && !o.stuck
		if o.owes {
			return nil
		}
	}
	s.ledger.done(next.since)
	return nil
}

// most resources in a response.
func (s *session) most(t *typeState, resp *discoveryv3.DeltaDiscoveryResponse) int {
	if (t.url == ScopeType || t.url == RouteType) && len(resp.RemovedResources) == 0 {
		return s.limits.chunkScopes
	}
	return s.limits.chunkBytes
}

// dispatch numbers a response that has something to say.
func (s *session) dispatch(t *typeState, b *batch, resp *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse {
	last := !t.told && t.unsent == 0
	if len(b.names) == 0 && !last {
		return nil
	}
	if last {
		t.told = true
		resp.SystemVersionInfo = Synced
		s.checkSettled(t)
	}
	resp.Nonce = s.nextNonce()
	t.batches[resp.Nonce] = b
	t.inflight += b.bytes
	if s.events.pushed != nil {
		s.events.pushed(t.url, len(b.names), b.bytes)
	}
	return resp
}

// launch puts a resource, or the news that there is none, into a response.
func (s *session) launch(t *typeState, b *batch, resp *discoveryv3.DeltaDiscoveryResponse, name string, f *flight) {
	o := t.at(name)
	o.flying, o.asked, o.stuck = f, false, false
	b.names = append(b.names, name)
	if f.r == nil {
		resp.RemovedResources = append(resp.RemovedResources, name)
		b.bytes += len(name) + overhead
	} else {
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: name, Version: f.r.Version, Resource: f.r.Body})
		b.bytes += f.r.size()
		s.count(f.r.Needs, 1)
	}
	t.dispatched(name)
	if t.url == ClusterType {
		s.clusterSent(name, f)
	}
}

// clusterSent keeps the cluster's assignment in step. Behind each change of a cluster its assignment goes again, even in
// the version that the client has: Envoy warms a changed cluster only when the assignment comes again, and does not ask
// for it. With a removed cluster Envoy, which asks for
// assignments by name, drops the assignment.
func (s *session) clusterSent(name string, f *flight) {
	s.wake(cause{given, Ref{ClusterType, name}})
	a := s.types[AssignmentType]
	if a == nil || !a.subscribed {
		return
	}
	o := a.odd[name]
	flying := o != nil && o.flying != nil
	if a.held[name] == nil && !flying {
		return // it comes by itself
	}
	if f.r == nil {
		if a.names[name] {
			a.at(name).lost = a.held[name] != nil
		}
		if a.names[name] && flying {
			o.flying.lost = true
		}
		return
	}
	a.at(name).asked = true
	a.queue.pushSince(name, f.since)
}

// judge decides on a name: what is to be sent of it now, or nil. What must wait is judged again when its time comes.
func (s *session) judge(t *typeState, name string) *flight {
	if o := t.odd[name]; o != nil {
		if o.flying != nil { // again when that is answered
			return nil
		}
		s.unwait(t, name)
		o.stuck = false
	}
	if !t.wants(name) {
		s.settle(t, name)
		return nil
	}
	if r := t.table.get(name); r != nil {
		return s.judgeThere(t, name, r)
	}
	return s.judgeGone(t, name)
}

// judgeThere decides on a name that the table has.
func (s *session) judgeThere(t *typeState, name string, r *Resource) *flight {
	h, o := t.held[name], t.odd[name]
	certain := o == nil || !o.asked && len(o.maybe) == 0
	if h != nil && h.Version == r.Version && certain {
		if h != r || o != nil && o.empty {
			lost := o != nil && o.lost
			s.hold(t, name, r)
			if lost {
				o.lost = true
			}
			s.wakeUsers(t, name)
		}
		s.settle(t, name)
		return nil
	}
	if o != nil && o.refused {
		if o.version == r.Version {
			s.settle(t, name)
			return nil
		}
		o.refused = false
	}
	if on, hopeless, unmet := s.unmet(r.Needs); unmet {
		s.await(t, name, cause{given, on})
		if hopeless {
			t.at(name).stuck = true
			s.wakeUsers(t, name)
			s.settle(t, name)
		}
		return nil
	}
	return &flight{r: r}
}

// judgeGone decides on a name that the table lacks.
func (s *session) judgeGone(t *typeState, name string) *flight {
	o := t.odd[name]
	nothing := t.held[name] == nil && (o == nil || len(o.maybe) == 0)
	asked := o != nil && o.asked
	switch {
	case t.url == AssignmentType && t.names[name] && (nothing || o != nil && o.empty):
		// An EDS subscription is answered at once, with an empty assignment: Envoy would wait for it.
		if nothing || asked {
			return &flight{r: emptyAssignment(name), empty: true}
		}
	case nothing && asked:
		return &flight{} // asked for by name, and not there: say so
	case nothing:
		s.wakeUsers(t, name)
	case o != nil && o.refused && o.version == "":
	default:
		on, busy := s.busy(t, name)
		if !busy {
			return &flight{}
		}
		s.await(t, name, on) // and settle: Synced speaks of what is there, not of what is gone
	}
	s.settle(t, name)
	return nil
}

func emptyAssignment(name string) *Resource {
	r, err := NewResource(name, &endpointv3.ClusterLoadAssignment{ClusterName: name})
	if err != nil {
		panic(err) // a message without content that can fail to marshal does not exist
	}
	return &r
}
