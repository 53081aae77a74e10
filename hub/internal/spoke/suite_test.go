package spoke

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var (
	apiConfig *rest.Config
	api       client.Client
)

func TestMain(m *testing.M) { os.Exit(kubetest.RunWithClient(m, &apiConfig, &api, kubetest.HubCRDs())) }

// engine stands for the room that builds: it says what the test has it say, and remembers what it was asked to withdraw.
type engine struct {
	mu        sync.Mutex
	counts    map[string]counts
	entries   map[types.NamespacedName][]v1alpha1.SliceEntryStatus
	gens      map[types.NamespacedName]int64
	changed   chan struct{}
	withdraw  func(ctx context.Context, name string) error
	withdrawn []string
	drained   map[string]bool
	badCA     string
	lost      []string
}

func newEngine() *engine {
	return &engine{counts: map[string]counts{}, entries: map[types.NamespacedName][]v1alpha1.SliceEntryStatus{},
		gens: map[types.NamespacedName]int64{}, drained: map[string]bool{}, changed: make(chan struct{})}
}

func (e *engine) change(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *engine) SliceEntries(slice types.NamespacedName) ([]v1alpha1.SliceEntryStatus, int64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gen, ok := e.gens[slice]
	return slices.Clone(e.entries[slice]), gen, ok
}

func (e *engine) Spoke(name string) (int, int, int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.counts[name]
	return c.exported, c.conflicts, c.rejected, c.stale
}

func (e *engine) Limits(name string) ([]string, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts[name].large, e.counts[name].cut
}

func (e *engine) Overload(name string) registry.Overload {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts[name].overload
}

func (e *engine) Unacknowledged() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

func (e *engine) Drained(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drained[name]
}

// Trust is what spokes have to use.
func (e *engine) Trust() identity.Trust { return identity.Trust{Bundle: "b0", Authority: "a0"} }

// CA says what a test has it say.
func (e *engine) CA() (string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.badCA, e.changed
}

func (e *engine) Changes() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *engine) Withdraw(ctx context.Context, name string, _ types.UID) error {
	e.mu.Lock()
	e.withdrawn = append(e.withdrawn, name)
	f := e.withdraw
	e.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx, name)
}

// fixture is a running hub, as far as this room goes.
type fixture struct {
	*gomega.WithT
	engine *engine
	clock  *clocktesting.FakeClock // of the Spoke controller; Leases run by the real one
	ctx    context.Context
}

func start(t *testing.T, change ...func(*Options, *liveness.Options)) *fixture {
	t.Helper()
	f := &fixture{WithT: gomega.NewWithT(t), engine: newEngine(), clock: clocktesting.NewFakeClock(time.Now()), ctx: t.Context()}
	f.SetDefaultEventuallyTimeout(time.Minute) // of a deadline, not of a measurement
	f.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	mgr, err := ctrl.NewManager(apiConfig, ctrl.Options{
		Scheme: kubetest.Scheme(), Metrics: server.Options{BindAddress: "0"}, Cache: cache.Options{ByObject: CacheByObject()},
	})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	lo := liveness.Options{Cache: mgr.GetCache(), LeaseDuration: 10 * time.Second}
	o := Options{
		Fleet: "fleet", HubAddress: "hub.example:8443", APIServer: "https://hub.example:6443", APICA: []byte("api-ca"),
		Bundle: func() []byte { return []byte("bundle") }, Trust: f.engine.Trust, CA: f.engine.CA, Findings: f.engine, Withdrawer: f.engine, Clock: f.clock,
		SkipNameValidation: true,
	}
	for _, c := range change {
		c(&o, &lo)
	}
	obs, err := liveness.New(lo)
	f.Expect(err).NotTo(gomega.HaveOccurred())
	o.Liveness = obs
	f.Expect(mgr.Add(obs)).To(gomega.Succeed())
	f.Expect(Setup(mgr, o)).To(gomega.Succeed())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("manager: %v", err)
		}
	})
	return f
}

func (f *fixture) create(o client.Object) {
	f.Expect(api.Create(f.ctx, o)).To(gomega.Succeed())
}

func (f *fixture) spoke(name string) *v1alpha1.Spoke {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	f.create(s)
	return s
}

// condition waits for a Spoke's condition.
func (f *fixture) condition(name, kind string, status metav1.ConditionStatus, reason string) *v1alpha1.Spoke {
	var s v1alpha1.Spoke
	f.Eventually(func() error {
		if err := api.Get(f.ctx, client.ObjectKey{Name: name}, &s); err != nil {
			return err
		}
		c := meta.FindStatusCondition(s.Status.Conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("%s: %+v, want %s %s", kind, c, status, reason)
		}
		return nil
	}).Should(gomega.Succeed())
	return &s
}

// event waits for an Event on an object.
func (f *fixture) event(name, reason, note string) {
	f.Eventually(func() error {
		var list eventsv1.EventList
		if err := api.List(f.ctx, &list); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Regarding.Name == name && e.Reason == reason && strings.Contains(e.Note, note) {
				return nil
			}
		}
		return fmt.Errorf("no event %s on %s", reason, name)
	}).Should(gomega.Succeed())
}

func (f *fixture) get(o client.Object, namespace, name string) error {
	return api.Get(f.ctx, client.ObjectKey{Namespace: namespace, Name: name}, o)
}

// finalize ends a Terminating namespace, as kube-controller-manager would.
func (f *fixture) finalize(name string) {
	f.Eventually(func() error {
		var ns corev1.Namespace
		if err := f.get(&ns, "", name); err != nil {
			return err
		}
		if ns.DeletionTimestamp.IsZero() {
			return errors.New("the namespace is not being deleted")
		}
		ns.Spec.Finalizers = nil
		return api.SubResource("finalize").Update(f.ctx, &ns)
	}).Should(gomega.Succeed())
}
