package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

func TestMain(m *testing.M) {
	// A watch that ends while client-go filters it leaves that goroutine behind; it is not ours to end.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"))
}

func TestASliceReachesTheStreams(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	eu := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	eu.tables(t, "ns/ns")
	eu.order(t, "spoke/us", "127.0.0.2")
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("a")))
	set := compile.ClusterFor([]string{"eu", "us"})
	eu.order(t, set, "127.0.0.1", "127.0.0.2")
	us := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	us.order(t, set, "127.0.0.2", "127.0.0.1")
	f.facts.set("us", liveness.Silent, "127.0.0.2:15443")
	eu.order(t, set, "127.0.0.1", "127.0.0.2 DEGRADED")
	f.spoke("eu", "1", "europe", func(s *v1alpha1.Spoke) { s.Generation, s.Spec.State = 2, v1alpha1.SpokeDraining })
	us.order(t, set, "127.0.0.2 DEGRADED", "127.0.0.1 DRAINING")
}

// TestDrained: a drain is told when every client has acknowledged it, and not before; one that is taken back is none.
func TestDrained(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	quick := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	hold := make(chan struct{})
	slow := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	slow.order(t, "spoke/us", "127.0.0.2")
	slow.mu.Lock()
	slow.hold = hold
	slow.mu.Unlock()
	drain := func(generation int64, state v1alpha1.SpokeState) {
		f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation, s.Spec.State = generation, state })
	}
	drain(2, v1alpha1.SpokeDraining)
	quick.order(t, "spoke/us", "127.0.0.2 DRAINING")
	if f.engine.Drained("us") || f.engine.Drained("eu") {
		t.Error("told before every client has acknowledged")
	}
	close(hold)
	until(t, f.engine, "the drain is told", func() bool { return f.engine.Drained("us") })
	if n := testutil.ToFloat64(f.engine.metrics.health.WithLabelValues("Draining")); n != 1 {
		t.Errorf("%v draining spokes counted", n)
	}
	drain(3, v1alpha1.SpokeActive)
	quick.order(t, "spoke/us", "127.0.0.2")
	if f.engine.Drained("us") {
		t.Error("still told of a drain that was taken back")
	}
}

// TestARemovedPlace: its endpoints go, its routes stay; routers are still told where to look for it; and it comes back.
func TestARemovedPlace(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a"), agent("only")))
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("a")))
	eu := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	set := compile.ClusterFor([]string{"eu", "us"})
	eu.order(t, set, "127.0.0.1", "127.0.0.2")
	before, _ := f.engine.tables.Get("ns/ns")
	f.facts.reach("us", federate.Reach{Witnesses: 3, Against: []string{"ap", "eu"}})
	f.facts.set("us", liveness.Removed, "127.0.0.2:15443")
	eu.order(t, set, "127.0.0.1")
	eu.order(t, "spoke/us")
	eu.named(t, "spoke/us", "us/127.0.0.2:15443")
	if after, _ := f.engine.tables.Get("ns/ns"); after.Version != before.Version {
		t.Error("the routes changed")
	}
	x, err := f.engine.Explain("/ns/agent/a", "eu")
	if err != nil {
		t.Fatal(err)
	}
	if last := x.Order[len(x.Order)-1]; last.Spoke != "us" || last.Use != "not used: its Lease has expired, and 2 of 3 spokes that can tell cannot reach it" {
		t.Errorf("explained as %+v", last)
	}
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation, s.Spec.State = 2, v1alpha1.SpokeDraining })
	f.facts.set("us", liveness.Held, "127.0.0.2:15443") // nothing is concluded: as it was told
	eu.order(t, set, "127.0.0.1", "127.0.0.2 DRAINING")
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation = 3 })
	eu.order(t, set, "127.0.0.1", "127.0.0.2")
	eu.named(t, "spoke/us")
}

func TestNothingIsServedBeforeSpokesAreComplete(t *testing.T) {
	one, two := agentSlice("us", "one", 1, agent("a")), agentSlice("us", "two", 1, agent("b"))
	two.Spec.SourceNamespace = "ns2"
	f := startHalfRead(t, one)
	p := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	changed := f.engine.Changes()
	f.registry.SetReport(reportOf("us", "s1", one, two)) // two has not been read yet
	<-changed
	select {
	case <-f.engine.Serving():
		t.Fatal("served although us is half read")
	default:
	}
	f.registry.SetSlice(two)
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		tables := held[delta.ScopeType]
		if len(tables) == 1 {
			t.Error("a client was told of a half-read spoke")
		}
		if len(tables) < 2 {
			return "tables are missing"
		}
		return ""
	})
}

func TestGraceEndsTheWait(t *testing.T) {
	f := startHalfRead(t, agentSlice("us", "one", 1, agent("a")), func(o *Options) { o.Grace = 10 * time.Millisecond })
	f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil).tables(t, "ns/ns")
}

func TestOnlyExistingSpokesAreServed(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	other := idOf("eu", uid("1"))
	other.Fleet = "elsewhere"
	for name, c := range map[string]struct {
		material identity.Material
		want     string
	}{
		"a spoke that does not exist":       {f.ca.spoke(t, idOf("xx", uid("9"))), "PermissionDenied"},
		"a spoke of the same name, earlier": {f.ca.spoke(t, idOf("eu", uid("7"))), "PermissionDenied"},
		"another fleet":                     {f.ca.spoke(t, other), "PermissionDenied"},
		"no certificate":                    {identity.Material{Bundle: f.ca.leaf(t, "spiffe://x/y", "x").Bundle}, "Unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) { f.connect(c.material, "eu", nil).refused(t, c.want) })
	}
	if n := testutil.CollectAndCount(f.engine.metrics.refused); n != 3 {
		t.Errorf("%d reasons counted, want 3", n)
	}
}

// TestNobodyIsUnknownBeforeAllIsRead has a stream come while the hub's API server has not told of any Spoke yet.
func TestNobodyIsUnknownBeforeAllIsRead(t *testing.T) {
	read, came := make(chan struct{}), make(chan struct{}, 100)
	f := prepare(t, func(o *Options) {
		o.Grace = 10 * time.Millisecond
		o.Synced = func(ctx context.Context) bool {
			select {
			case <-read:
				return true
			case <-ctx.Done():
				return false
			}
		}
		o.Peer = func(ctx context.Context) (identity.ID, error) { came <- struct{}{}; return identity.PeerID(ctx) }
	})
	f.run()
	us := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	<-came
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	close(read)
	us.tables(t, "ns/ns")
	if n := testutil.CollectAndCount(f.engine.metrics.refused); n != 0 {
		t.Errorf("refused for %d reasons", n)
	}
}

func TestTheViewIsThatOfTheCertificate(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("a")))
	liar := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "eu", nil) // its node id says eu
	liar.order(t, compile.ClusterFor([]string{"eu", "us"}), "127.0.0.2", "127.0.0.1")
}

func TestAStreamOfASpokeThatMovedIsEnded(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("a")))
	set := compile.ClusterFor([]string{"eu", "us"})
	p := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	p.order(t, set, "127.0.0.2", "127.0.0.1")
	f.spoke("us", "2", "asia", func(s *v1alpha1.Spoke) { s.Generation = 2 })
	p.refused(t, "Aborted")
	f.spoke("eu", "1", "asia", func(s *v1alpha1.Spoke) { s.Generation = 2 }) // both in one region: by name
	p.order(t, set, "127.0.0.1", "127.0.0.2")
}

func TestWithdraw(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	eu := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	us := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	eu.tables(t, "ns/ns")
	us.tables(t, "ns/ns")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation, s.DeletionTimestamp = 2, &metav1.Time{Time: time.Now()} })
	if err := f.engine.Withdraw(ctx, "us", uid("2")); err != nil {
		t.Fatal(err)
	}
	eu.mu.Lock() // acknowledged: nothing is left to wait for
	if len(eu.held[delta.ScopeType]) != 0 || len(eu.held[delta.ClusterType]) != 1 {
		t.Errorf("eu still holds %v and %v", eu.held[delta.ScopeType], eu.held[delta.ClusterType])
	}
	if strings.Contains(string(eu.held[delta.ExtensionType][compile.AuthzName].Body.Value), "/spoke/us/") {
		t.Error("us is still authorised")
	}
	eu.mu.Unlock()
	us.refused(t, "PermissionDenied")
	if err := f.engine.Withdraw(ctx, "us", uid("2")); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestWithdrawIsBounded(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	hold := make(chan struct{})
	defer close(hold)
	slow := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	slow.tables(t, "ns/ns")
	slow.mu.Lock()
	slow.hold = hold // from now on it acknowledges nothing
	slow.mu.Unlock()
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation, s.DeletionTimestamp = 2, &metav1.Time{Time: time.Now()} })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := f.engine.Withdraw(ctx, "us", uid("2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline's", err)
	}
}

func TestFindingsTellBothOwners(t *testing.T) {
	f := start(t)
	f.spoke("old", "1", "europe", func(s *v1alpha1.Spoke) { s.CreationTimestamp = metav1.Unix(1, 0) })
	f.spoke("new", "2", "america", func(s *v1alpha1.Spoke) { s.CreationTimestamp = metav1.Unix(2, 0) })
	slow := agent("a")
	seconds := int32(300)
	slow.RequestTimeoutSeconds = &seconds
	bad := agent("Not_A_Label")
	f.registry.SetSlice(agentSlice("old", "one", 3, agent("a")))
	f.registry.SetSlice(agentSlice("new", "one", 4, slow, bad, bad))
	for {
		changed := f.engine.Changes()
		entries, generation, ok := f.engine.SliceEntries(types.NamespacedName{Namespace: registry.NamespacePrefix + "new", Name: "one"})
		old, _, _ := f.engine.SliceEntries(types.NamespacedName{Namespace: registry.NamespacePrefix + "old", Name: "one"})
		if ok && len(entries) == 2 && len(old) == 1 {
			if generation != 4 || entries[0].Reason != v1alpha1.SliceInvalidName || entries[1].Reason != v1alpha1.SlicePropertiesConflict || old[0].Reason != v1alpha1.SlicePropertiesConflict {
				t.Errorf("generation %d, new %v, old %v", generation, entries, old)
			}
			break
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("not in time: new %v, old %v", entries, old)
		}
	}
	if exported, conflicts, rejected, stale := f.engine.Spoke("new"); exported != 1 || conflicts != 1 || rejected != 2 || !stale {
		t.Errorf("new: %d exported, %d conflicts, %d rejected, stale %v", exported, conflicts, rejected, stale)
	}
	if _, _, ok := f.engine.SliceEntries(types.NamespacedName{Namespace: "nobody", Name: "one"}); ok {
		t.Error("a slice that does not exist is known")
	}
	e, err := f.engine.Explain("/ns/agent/a/rest", "new")
	if err != nil || len(e.Order) != 2 || e.Order[0].Spoke != "new" || e.Order[0].Why != "own cluster" || len(e.Inputs) != 2 || len(e.Resource.Conflicts) != 1 {
		t.Errorf("explain %+v, %v", e, err)
	}
	for path, want := range map[string]string{"/x/agent/a": "unknown namespace", "/ns/mcp/a": "unknown type", "/ns/agent/x": "unknown name", "/ns": "is not /namespace/type/name"} {
		if _, err := f.engine.Explain(path, "new"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("explain %s: %v, want %q", path, err, want)
		}
	}
	if r := f.engine.Resources("ns", "agent"); len(r.Resources) != 1 || !r.Serving || r.Epoch != testEpoch {
		t.Errorf("resources %+v", r)
	}
	if r := f.engine.Resources("ns", "mcp"); len(r.Resources) != 0 {
		t.Errorf("resources %+v", r)
	}
}
