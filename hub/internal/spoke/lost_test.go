package spoke

import (
	"context"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// behind is a cache that still has a Spoke, and perhaps its namespace, of a store that was emptied.
type behind struct {
	client.Client
	spoke     *v1alpha1.Spoke
	namespace *corev1.Namespace
}

func (b behind) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	switch o := o.(type) {
	case *v1alpha1.Spoke:
		b.spoke.DeepCopyInto(o)
		return nil
	case *corev1.Namespace:
		if b.namespace != nil {
			b.namespace.DeepCopyInto(o)
			return nil
		}
	}
	return b.Client.Get(ctx, key, o, opts...)
}

// silent knows of nobody.
type silent struct{ synced chan struct{} }

func (silent) Get(string) liveness.Knowledge { return liveness.Knowledge{} }
func (silent) Changed() <-chan struct{}      { return nil }
func (s silent) Synced() <-chan struct{}     { return s.synced }

func newSilent() silent {
	s := silent{make(chan struct{})}
	close(s.synced)
	return s
}

// lostSpoke was in the store before it was emptied.
func lostSpoke(name string) *v1alpha1.Spoke {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "10573000-0000-0000-0000-000000000000", ResourceVersion: "1", Finalizers: []string{Finalizer}}}
	s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	return s
}

// alone is the API server without a hub.
func alone(t *testing.T) *fixture {
	return &fixture{WithT: gomega.NewWithT(t), ctx: t.Context()}
}

// reconcileBehind returns when to look again.
func (f *fixture) reconcileBehind(b behind) time.Duration {
	e := newEngine()
	r := &reconciler{client: b, direct: api, Options: Options{
		Fleet: "fleet", HubAddress: "hub.example:8443", APIServer: "https://hub.example:6443", Bundle: func() []byte { return []byte("bundle") },
		Trust: e.Trust, CA: e.CA, Findings: e, Withdrawer: e, Liveness: newSilent(), Clock: clocktesting.NewFakeClock(time.Now()), Recorder: nil,
	}}
	res, err := r.Reconcile(f.ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(b.spoke)})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	return res.RequeueAfter
}

// TestNothingIsMadeForASpokeThatIsOnlyInTheCache: a namespace or a join Secret with its UID would be in the way of the Spoke of that name
// that is created in the emptied store, and its token be refused.
func TestNothingIsMadeForASpokeThatIsOnlyInTheCache(t *testing.T) {
	t.Run("no Spoke", func(t *testing.T) {
		f := alone(t)
		again := f.reconcileBehind(behind{Client: api, spoke: lostSpoke("lost-one")})
		f.Expect(apierrors.IsNotFound(f.get(&corev1.Namespace{}, "", "isthmus-spoke-lost-one"))).To(gomega.BeTrue())
		f.Expect(again).To(gomega.Equal(lostRetry))
	})
	t.Run("another Spoke of that name", func(t *testing.T) {
		f := alone(t)
		f.spoke("lost-two")
		f.reconcileBehind(behind{Client: api, spoke: lostSpoke("lost-two")})
		f.Expect(apierrors.IsNotFound(f.get(&corev1.Namespace{}, "", "isthmus-spoke-lost-two"))).To(gomega.BeTrue())
		var now v1alpha1.Spoke
		f.Expect(f.get(&now, "", "lost-two")).To(gomega.Succeed())
		f.Expect(now.Status.Identity).To(gomega.BeEmpty(), "nothing is said of the Spoke that is lost")
	})
	t.Run("its namespace is in the cache too", func(t *testing.T) {
		f := alone(t)
		s := f.spoke("lost-three")
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-spoke-lost-three", Annotations: map[string]string{"isthmus.dev/spoke-uid": string(s.UID)}}}
		f.create(ns)
		lost := lostSpoke("lost-three")
		cached := ns.DeepCopy()
		cached.Annotations["isthmus.dev/spoke-uid"] = string(lost.UID)
		cached.Labels = map[string]string{managedByLabel: managedBy, spokeLabel: lost.Name}
		f.reconcileBehind(behind{Client: api, spoke: lost, namespace: cached})
		f.Expect(apierrors.IsNotFound(f.get(&corev1.Secret{}, ns.Name, "join"))).To(gomega.BeTrue())
	})
}

// TestASpokeThatOnlyTheCacheHasDeleted was deleted and came back with a backup, under a hub that runs: it keeps its rights and what it has written.
func TestASpokeThatOnlyTheCacheHasDeleted(t *testing.T) {
	f := alone(t)
	s := f.spoke("lost-four")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-spoke-lost-four", Annotations: map[string]string{"isthmus.dev/spoke-uid": string(s.UID)}}}
	f.create(ns)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: objectName}}
	f.create(account)
	cached := s.DeepCopy()
	cached.Finalizers, cached.DeletionTimestamp = []string{Finalizer}, &metav1.Time{Time: time.Now()}
	again := f.reconcileBehind(behind{Client: api, spoke: cached})
	f.Expect(f.get(account, ns.Name, objectName)).To(gomega.Succeed(), "it has lost its account")
	f.Expect(f.get(ns, "", ns.Name)).To(gomega.Succeed())
	f.Expect(ns.DeletionTimestamp).To(gomega.BeNil(), "its namespace is being deleted")
	f.Expect(again).To(gomega.Equal(lostRetry))
}
