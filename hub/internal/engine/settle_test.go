package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// neverRest has a stream owe its client something newer whenever that answers.
func (f *fixture) neverRest(p *peer) {
	i := 0
	next := func() {
		i++
		r, err := delta.NewResource("ns/busy", &routev3.ScopedRouteConfiguration{Name: fmt.Sprintf("ns/busy-%d", i)})
		if err != nil {
			f.t.Error(err)
			return
		}
		f.engine.tables.Apply([]delta.Resource{r}, nil)
	}
	p.mu.Lock()
	p.before = next
	p.mu.Unlock()
	f.engine.tables.Apply([]delta.Resource{must(delta.NewResource("ns/busy", &routev3.ScopedRouteConfiguration{Name: "ns/busy-0"}))}, nil)
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func deleted(s *v1alpha1.Spoke) {
	s.Generation, s.DeletionTimestamp = 3, &metav1.Time{Time: time.Now()}
}

func draining(s *v1alpha1.Spoke) { s.Generation, s.Spec.State = 2, v1alpha1.SpokeDraining }

// In a fleet that never rests a drain is told, and a Spoke deleted, as soon as every router has acknowledged that, whatever else is under
// way.
func TestAFleetThatNeverRests(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	eu := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	eu.tables(t, "ns/ns")
	f.neverRest(eu)
	f.spoke("us", "2", "america", draining)
	until(t, f.engine, "the drain is told", func() bool { return f.engine.Drained("us") })
	eu.order(t, "spoke/us", "127.0.0.2 DRAINING")
	f.spoke("us", "2", "america", deleted)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.engine.Withdraw(ctx, "us", uid("2")); err != nil {
		t.Fatal(err)
	}
	eu.mu.Lock()
	defer eu.mu.Unlock()
	if _, ok := eu.held[delta.ScopeType]["ns/ns"]; ok || len(eu.held[delta.ScopeType]) != 1 {
		t.Errorf("eu still holds what us had declared: %d tables", len(eu.held[delta.ScopeType]))
	}
}

// board stands for the other replicas of a hub, which need an API server; hub/deletion_test.go has two.
type board struct {
	mu      sync.Mutex
	own     map[types.UID]int64
	behind  []string
	changed chan struct{}
	asked   chan int64 // generations
}

func (b *board) Acknowledge(all map[types.UID]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own = all
}

func (b *board) Behind(_ types.UID, generation int64) []string {
	select {
	case b.asked <- generation:
	default:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.behind)
}

func (b *board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *board) set(behind ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.behind = behind
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) acknowledged(spoke types.UID) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own[spoke]
}

// What this replica's routers have acknowledged is told to the others, of the generation that they were told of; and neither a drain
// nor a deletion is done before the others have said the same.
func TestOtherReplicasAreWaitedFor(t *testing.T) {
	others := &board{behind: []string{"b"}, changed: make(chan struct{}), asked: make(chan int64, 100)}
	f := start(t, func(o *Options) { o.Replicas = others })
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	eu := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	eu.order(t, "spoke/us", "127.0.0.2")
	hold := make(chan struct{})
	eu.mu.Lock()
	eu.hold = hold
	eu.mu.Unlock()
	f.spoke("us", "2", "america", draining)
	until(t, f.engine, "the drain is built", func() bool { return f.engine.isDraining("us") })
	if g := others.acknowledged(uid("2")); g != 0 {
		t.Errorf("generation %d is acknowledged, and no router has", g)
	}
	close(hold)
	until(t, f.engine, "the others are told", func() bool { return others.acknowledged(uid("2")) == 2 })
	if f.engine.Drained("us") {
		t.Error("drained, although another replica's routers have not acknowledged it")
	}
	others.set()
	until(t, f.engine, "the drain is told", func() bool { return f.engine.Drained("us") })

	others.set("b")
	f.spoke("us", "2", "america", deleted)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.engine.Withdraw(ctx, "us", uid("2")) }()
	for <-others.asked != 3 { // all that is waited for is the other replica
		continue
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "[b]") {
		t.Errorf("error %v, want one that names replica b", err)
	}
	until(t, f.engine, "the others are told of the deletion", func() bool { return others.acknowledged(uid("2")) == 3 })
	go func() { done <- f.engine.Withdraw(t.Context(), "us", uid("2")) }()
	others.set()
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.registry.DeleteSpoke("us")
	until(t, f.engine, "nothing is told of what is gone", func() bool { return others.acknowledged(uid("2")) == 0 })
}

func (e *Engine) isDraining(spoke string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.b.spokes[spoke].Draining
}
