package engine

import (
	"context"
	"errors"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// storeStub stands for what hub/internal/epoch knows of the store, which needs an API server; hub/restored_test.go uses the real one.
type storeStub struct {
	mu      sync.Mutex
	epoch   delta.Epoch
	changed chan struct{}
	marked  chan struct{}
	next    *delta.Epoch // what the store turns out to be when it is looked at
	unknown bool         // it cannot be looked at
	claims  map[string]error
	asked   chan struct{} // takes a value with each question that is not answered
}

func newStore(uid string) *storeStub {
	return &storeStub{epoch: delta.Epoch{UID: uid}, changed: make(chan struct{}), marked: make(chan struct{}), claims: map[string]error{}, asked: make(chan struct{}, 100)}
}

func (s *storeStub) Unacknowledged() []string { return nil }

func (s *storeStub) Identifier() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch.String()
}

func (s *storeStub) UID() string { return delta.ParseEpoch(s.Identifier()).UID }

func (s *storeStub) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *storeStub) Marked() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marked
}

func (s *storeStub) Verify(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		return errors.New("no answer")
	}
	if s.next != nil {
		s.epoch, s.next = *s.next, nil
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return nil
}

func (s *storeStub) Claim(_ context.Context, _, seen string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims[seen]
}

func (s *storeStub) set(change func(*storeStub)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// TestNothingOfARestoredStoreIsPublishedUnderTheOldEpoch: while it is not certain which store was read nothing is published, and when it
// turns out to be another all streams begin anew, under its epoch, before anything of it is sent.
func TestNothingOfARestoredStoreIsPublishedUnderTheOldEpoch(t *testing.T) {
	s := newStore(testEpoch)
	f := start(t, func(o *Options) { o.Epoch = s })
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	p := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	p.tables(t, "ns/ns")
	s.set(func(s *storeStub) { s.unknown = true })
	more := agentSlice("us", "two", 1, agent("b"))
	more.Spec.SourceNamespace = "ns2"
	published := f.engine.Changes()
	f.registry.SetSlice(more)
	for range 3 { // it tries again and again
		<-s.asked
	}
	select {
	case <-published:
		t.Error("a build was published although nobody knows of which store")
	case err := <-p.failed:
		t.Errorf("the stream ended: %v", err)
	default:
	}
	p.mu.Lock()
	p.epoch = "epoch-2" // what comes under the first is refused from now on
	p.mu.Unlock()
	s.set(func(s *storeStub) { s.unknown, s.next = false, &delta.Epoch{UID: "epoch-2"} })
	p.refused(t, "the view has changed")
	p.tables(t, "ns/ns", "ns/ns2")
	if r := f.engine.Resources("", ""); r.Epoch != "epoch-2" {
		t.Errorf("epoch %q is told", r.Epoch)
	}
}

// TestAClaimIsHeardBeforeAnythingIsServed: a router that has seen what this store may lack waits.
func TestAClaimIsHeardBeforeAnythingIsServed(t *testing.T) {
	s := newStore(testEpoch)
	s.claims["epoch-1;mark=9.x"] = errors.New("no answer")
	f := start(t, func(o *Options) { o.Epoch = s })
	f.spoke("eu", "1", "europe")
	id := idOf("eu", uid("1"))
	until(t, f.engine, "the spoke", func() bool { _, ok := f.engine.viewOf(id); return ok })
	node := &corev3.Node{Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{delta.SeenField: structpb.NewStringValue("epoch-1;mark=9.x")}}}
	f.engine.o.Peer = func(context.Context) (identity.ID, error) { return id, nil }
	if _, _, err := f.engine.view(t.Context(), node); status.Code(err) != codes.Unavailable {
		t.Errorf("served with %v", err)
	}
	if n := testutil.ToFloat64(f.engine.metrics.refused.WithLabelValues("unsure")); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	s.set(func(s *storeStub) { clear(s.claims) })
	if _, _, err := f.engine.view(t.Context(), node); err != nil {
		t.Error(err)
	}
}
