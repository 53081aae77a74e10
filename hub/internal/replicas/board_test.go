package replicas

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var apiConfig *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, &apiConfig)) }

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type world struct {
	t         *testing.T
	c         client.Client
	namespace string
	clock     clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := client.New(apiConfig, client.Options{Scheme: kubetest.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "replicas-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, c: c, namespace: ns.Name, clock: clock{now: time.Now()}}
}

func (w *world) join(host string) *Board {
	w.t.Helper()
	b, err := Join(w.t.Context(), Options{
		Client: w.c, Namespace: w.namespace, Host: host, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Now: w.clock.Now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) beat(all ...*Board) {
	w.t.Helper()
	for _, b := range all {
		if err := b.beat(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) lines() map[string]string {
	w.t.Helper()
	var cm corev1.ConfigMap
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: ConfigMapName}, &cm); err != nil {
		w.t.Fatal(err)
	}
	return cm.Data
}

const eu, us = types.UID("eu-uid"), types.UID("us-uid")

// behind checks which replicas have not acknowledged a Spoke, by their hosts.
func (w *world) behind(b *Board, spoke types.UID, generation int64, want ...string) {
	w.t.Helper()
	got := b.Behind(spoke, generation)
	for i := range got {
		got[i] = got[i][:strings.LastIndex(got[i], "-")]
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s as of generation %d: %v are behind, want %v", spoke, generation, got, want)
	}
}

// A replica is behind until it has said so of the generation that is asked for, or of a later one.
func TestReplicasTellEachOther(t *testing.T) {
	w := newWorld(t)
	a := w.join("hub-a")
	w.behind(a, us, 2) // alone
	b, c := w.join("hub-b"), w.join("hub.c/with odd letters")
	w.beat(a)
	changed := a.Changed()
	w.behind(a, us, 2, "hub-b", "hub.c-with-odd-letters")
	b.Acknowledge(map[types.UID]int64{us: 2})
	c.Acknowledge(map[types.UID]int64{us: 1, eu: 7})
	w.beat(b, c, a)
	select {
	case <-changed:
	default:
		t.Error("what others said is no change")
	}
	w.behind(a, us, 2, "hub.c-with-odd-letters")
	w.behind(a, eu, 7, "hub-b")
	c.Acknowledge(map[types.UID]int64{us: 3})
	w.beat(c, a)
	w.behind(a, us, 2)
	w.behind(a, eu, 7, "hub-b", "hub.c-with-odd-letters")
	changed = a.Changed()
	w.beat(b, c, a)
	select {
	case <-changed:
		t.Error("a change, although nobody said anything new")
	default:
	}
	if n := testutil.ToFloat64(a.gauge); n != 3 {
		t.Errorf("%v replicas", n)
	}
}

// A replica that is gone is waited for as long as it may be slow, and its line stays for as long as it may come back; one that
// comes back counts again, and one that ends orderly is not waited for at all.
func TestAReplicaThatIsGone(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.join("a"), w.join("b"), w.join("c")
	w.beat(a)
	c.leave(t.Context())
	w.beat(a)
	w.behind(a, us, 1, "b")
	w.clock.pass((goneBeats - 1) * DefaultInterval)
	w.beat(a)
	w.behind(a, us, 1, "b")
	w.clock.pass(DefaultInterval)
	changed := a.Changed()
	w.beat(a)
	w.behind(a, us, 1)
	select {
	case <-changed:
	default:
		t.Error("that a replica is gone is no change")
	}
	w.beat(b, a)
	w.behind(a, us, 1, "b")
	w.clock.pass((buriedBeats + 1) * DefaultInterval)
	w.beat(a)
	if lines := w.lines(); len(lines) != 1 {
		t.Errorf("lines of replicas that are long gone stay: %v", lines)
	}
	w.beat(b, a) // it was only cut off
	w.behind(a, us, 1, "b")
}

// Whoever writes nonsense into the object, or deletes it, keeps nobody from telling the others; what is not understood acknowledges nothing.
func TestLinesThatAreNone(t *testing.T) {
	w := newWorld(t)
	a, b := w.join("a"), w.join("b")
	if _, err := a.write(t.Context(), map[string]any{"x-1": `{"beat":"many","acknowledged":{"us-uid":9}}`, "y-2": ""}); err != nil {
		t.Fatal(err)
	}
	b.Acknowledge(map[types.UID]int64{us: 1})
	w.beat(b, a)
	w.behind(a, us, 1, "x", "y")
	if err := w.c.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: ConfigMapName}}); err != nil {
		t.Fatal(err)
	}
	w.beat(b, a)
	w.behind(a, us, 1)
	w.behind(a, us, 2, "b")
}

// While they run an acknowledgement comes across, and a replica that ends takes its line away.
func TestItRuns(t *testing.T) {
	w := newWorld(t)
	a, b := w.join("a"), w.join("b")
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, x := range []*Board{a, b} {
		running.Go(func() {
			if err := x.Start(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	changed := a.Changed()
	deadline := time.After(30 * time.Second)
	follow := func(done func() bool) {
		for !done() {
			select {
			case <-changed:
				changed = a.Changed()
			case <-deadline:
				t.Fatal("not in time")
			}
		}
	}
	follow(func() bool { return len(a.Behind(us, 1)) == 1 })
	b.Acknowledge(map[types.UID]int64{us: 1})
	follow(func() bool { return len(a.Behind(us, 1)) == 0 })
	end()
	running.Wait()
	if lines := w.lines(); len(lines) != 0 {
		t.Errorf("lines stay: %v", lines)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := Join(t.Context(), Options{Host: "a"}); err == nil {
		t.Error("no error without a client")
	}
}
