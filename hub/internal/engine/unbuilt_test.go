package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestNothingIsSaidBeforeTheFirstBuild: an engine that has started and cannot tell which store it has read knows nothing. It is not ready, however
// long that takes; what somebody exports may be there; and a spoke may be served by other replicas, whose routers have acknowledged nothing.
func TestNothingIsSaidBeforeTheFirstBuild(t *testing.T) {
	s := newStore(testEpoch)
	s.unknown = true
	others := &board{behind: []string{"b"}, changed: make(chan struct{}), asked: make(chan int64, 100)}
	f := prepare(t, func(o *Options) { o.Epoch, o.Replicas, o.Grace = s, others, time.Millisecond })
	f.spoke("us", "2", "america", deleted)
	f.run()
	for range 3 { // it has tried again and again
		<-s.asked
	}
	select {
	case <-f.engine.Serving():
		t.Error("serving, and nothing is built")
	default:
	}
	if !f.engine.Declared("ns", v1alpha1.TypeAgent, "a") {
		t.Error("nobody exports it, for all that is known")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := f.engine.Withdraw(ctx, "us", uid("2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the spoke is withdrawn: %v", err)
	}
	s.set(func(s *storeStub) { s.unknown = false })
	<-f.engine.Serving()
	others.set()
	if err := f.engine.Withdraw(t.Context(), "us", uid("2")); err != nil {
		t.Error(err)
	}
	if f.engine.Declared("ns", v1alpha1.TypeAgent, "a") {
		t.Error("somebody exports it")
	}
}
