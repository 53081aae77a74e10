package epoch

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var apiConfig *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, &apiConfig)) }

// world is a namespace of its own on a real API server: the hub's store.
type world struct {
	t         *testing.T
	c         client.Client
	namespace string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := client.New(apiConfig, client.Options{Scheme: kubetest.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "epoch-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, c: c, namespace: ns.Name}
}

// replica is a Keeper that looks and counts only when it is told to.
type replica struct {
	*Keeper
	c      *Counter
	events *events.FakeRecorder
}

func (w *world) load() (*replica, error) {
	r := events.NewFakeRecorder(100)
	k, err := Load(context.Background(), Options{Client: w.c, Namespace: w.namespace, Recorder: r, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &replica{k, k.Counter(), r}, nil
}

func (w *world) start() *replica {
	w.t.Helper()
	r, err := w.load()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) configMap() *corev1.ConfigMap {
	w.t.Helper()
	cm := &corev1.ConfigMap{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: Name}, cm); err != nil {
		w.t.Fatal(err)
	}
	return cm
}

// restore puts what an earlier copy of the store held back.
func (w *world) restore(backup *corev1.ConfigMap) {
	w.t.Helper()
	cm := w.configMap()
	cm.Data = maps.Clone(backup.Data)
	if err := w.c.Update(w.t.Context(), cm); err != nil {
		w.t.Fatal(err)
	}
}

// count writes marks.
func (r *replica) count(t *testing.T, marks int) {
	t.Helper()
	for range marks {
		if err := r.c.count(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *replica) verify(t *testing.T) {
	t.Helper()
	if err := r.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) claim(t *testing.T, seen string) {
	t.Helper()
	if err := r.Claim(t.Context(), "us", seen); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, want string, all ...*replica) {
	t.Helper()
	for i, r := range all {
		if got := r.UID(); got != want {
			t.Errorf("replica %d is in epoch %s, want %s", i, got, want)
		}
	}
}

func TestReplicasShareAnEpoch(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	same(t, a.UID(), b)
	a.count(t, 3)
	seen := a.Identifier()
	if e := delta.ParseEpoch(seen); e.UID != a.UID() || !strings.HasPrefix(e.Mark, "4.") { // the first is of the epoch's beginning
		t.Errorf("told %q", seen)
	}
	epoch := a.UID()
	b.claim(t, seen) // b has not read it yet
	b.count(t, 1)    // the leadership goes over and back
	a.count(t, 1)
	for _, r := range []*replica{a, b} {
		r.verify(t)
		r.claim(t, seen)
		r.claim(t, "")
		r.claim(t, "another;mark=99.x.y")
	}
	same(t, epoch, a, b, w.start())
}

// TestARouterFindsOut: the hub that starts on a restored store has seen nothing itself. All replicas take the new epoch over, the
// administrator is told, and acknowledges it.
func TestARouterFindsOut(t *testing.T) {
	w := newWorld(t)
	before := w.start()
	before.count(t, 2)
	backup, old := w.configMap(), before.UID()
	atBackup := before.Identifier()
	before.count(t, 1)
	seen := before.Identifier()

	w.restore(backup)
	a, b := w.start(), w.start()
	a.claim(t, atBackup) // who has seen no more has lost nothing
	same(t, old, a)
	changed := a.Changed()
	a.claim(t, seen)
	<-changed
	if a.UID() == old {
		t.Fatal("a router has seen more than the store holds, and the epoch is the same")
	}
	b.verify(t)
	same(t, a.UID(), b, w.start())
	b.claim(t, seen) // it is of another epoch now
	same(t, a.UID(), a, b)
	if e := <-a.events.Events; !strings.Contains(e, "StoreRestored") || !strings.Contains(e, old) {
		t.Errorf("event %q", e)
	}
	if n := testutil.ToFloat64(b.metrics.unacknowledged); n != 1 {
		t.Errorf("%v epochs are to be acknowledged, want 1", n)
	}
	cm := w.configMap()
	cm.Data[supersedesKey] = old
	if err := w.c.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	changed = b.Changed()
	b.verify(t)
	<-changed
	if e := delta.ParseEpoch(b.Identifier()); len(e.Supersedes) != 1 || e.Supersedes[0] != old {
		t.Errorf("told %q after the acknowledgement", b.Identifier())
	}
	if n := testutil.ToFloat64(b.metrics.unacknowledged); n != 0 {
		t.Errorf("%v epochs are to be acknowledged, want none", n)
	}
	b.count(t, 1)
	if got := w.configMap().Data[supersedesKey]; got != old {
		t.Errorf("counting made %q of what the administrator wrote", got)
	}
}

// TestAForkIsFoundOutLate: the restored store has counted on, past what a router that was cut off has seen.
func TestAForkIsFoundOutLate(t *testing.T) {
	w := newWorld(t)
	before := w.start()
	before.count(t, 1)
	backup, old := w.configMap(), before.UID()
	before.count(t, 2)
	seen := before.Identifier()
	w.restore(backup)
	a := w.start()
	a.count(t, 5)
	same(t, old, a)
	a.claim(t, seen)
	if a.UID() == old {
		t.Error("a fork passes for the store")
	}
}

// TestAReplicaFindsOutItself: etcd is restored, or lost, under hubs that run.
func TestAReplicaFindsOutItself(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	a.count(t, 1)
	b.verify(t)
	backup, old := w.configMap(), a.UID()
	a.count(t, 1)
	w.restore(backup)
	b.verify(t) // has seen no more than is there
	same(t, old, b)
	if err := a.c.count(t.Context()); err != nil { // the leader counts in the new epoch, not on in the old line
		t.Fatal(err)
	}
	if a.UID() == old {
		t.Fatal("the replica that wrote a mark does not miss it")
	}
	b.verify(t)
	same(t, a.UID(), b)

	second := a.UID()
	if err := w.c.Delete(t.Context(), w.configMap()); err != nil {
		t.Fatal(err)
	}
	if err := w.c.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: Name}}); err != nil {
		t.Fatal(err)
	}
	b.verify(t)
	a.verify(t)
	if b.UID() == second {
		t.Error("the store is gone, and the epoch is the same")
	}
	same(t, b.UID(), a)
	if got := w.configMap().Data[restoredKey]; got != old+","+second {
		t.Errorf("lost epochs %q, want %q and %q", got, old, second)
	}
	a.count(t, 1)
	third := a.UID()
	b.claim(t, a.Identifier())
	if n := testutil.ToFloat64(b.metrics.invented); n != 0 {
		t.Errorf("%v marks of the other replica count as made up: they have different keys", n)
	}
	same(t, third, a, b)
}

func TestInventedMarksSayNothing(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	a.count(t, 1)
	old := a.UID()
	good := delta.ParseEpoch(a.Identifier()).Mark
	_, rest, _ := strings.Cut(good, ".")
	invented := []string{"999." + rest, "999", "x.y.z", good + "0", "..", "999.line."}
	for _, m := range invented {
		a.claim(t, old+";mark="+m)
	}
	same(t, old, a)
	if n := testutil.ToFloat64(a.metrics.invented); int(n) != len(invented) {
		t.Errorf("%v invented marks counted, want %d", n, len(invented))
	}
}

// TestNoFalseAlarm: two replicas that both believe to lead, routers that move between them, all at once, on a real store.
func TestNoFalseAlarm(t *testing.T) {
	w := newWorld(t)
	all := []*replica{w.start(), w.start(), w.start()}
	old := all[0].UID()
	var mu sync.Mutex
	seen := old
	var running sync.WaitGroup
	for i, r := range all {
		running.Go(func() {
			for range 30 {
				if i < 2 {
					_ = r.c.count(context.Background()) // a conflict is no harm
				}
				mu.Lock()
				claim := seen
				seen = r.Identifier()
				mu.Unlock()
				if err := r.Claim(context.Background(), "us", claim); err != nil {
					t.Error(err)
				}
				if err := r.Verify(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	same(t, old, all...)
}

func TestContentsThatAreNone(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	good := w.configMap()
	for key, text := range map[string]string{epochKey: "", numberKey: "many", linesKey: "a:0"} {
		bad := good.DeepCopy()
		bad.Data[key] = text
		w.restore(bad)
		if _, err := w.load(); err == nil || !strings.Contains(err.Error(), "delete") {
			t.Errorf("%s %q: %v, want an error that says what to do", key, text, err)
		}
		if err := a.Verify(t.Context()); err == nil {
			t.Errorf("%s %q is believed", key, text)
		}
	}
	w.restore(&corev1.ConfigMap{Data: map[string]string{epochKey: a.UID()}}) // of a version before there were marks
	fresh := w.start()
	same(t, a.UID(), fresh)
	fresh.count(t, 1)
	if e := delta.ParseEpoch(fresh.Identifier()); !strings.HasPrefix(e.Mark, "1.") {
		t.Errorf("told %q", fresh.Identifier())
	}
}

// TestItRuns: looked at and counted by themselves.
func TestItRuns(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	r.o.Interval = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Start(ctx) })
	running.Go(func() { _ = r.c.Start(ctx) })
	for range 3 {
		marked := r.Marked()
		select {
		case <-marked:
		case <-time.After(30 * time.Second):
			t.Fatal("no mark")
		}
	}
	cancel()
	running.Wait()
	if r.NeedLeaderElection() || !r.c.NeedLeaderElection() {
		t.Error("every replica looks, one counts")
	}
}
