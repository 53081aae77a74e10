package spoke

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// Finalizer holds a Spoke until its identity is withdrawn everywhere.
	Finalizer = "isthmus.dev/spoke"

	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "isthmus"
	spokeLabel     = "isthmus.dev/spoke"
	// objectName is the name of a spoke's ServiceAccount, Role, RoleBinding, Lease and report.
	objectName = "spoke"
)

// reconciler keeps one Spoke as it should be.
type reconciler struct {
	Options
	client client.Client
	// direct reads past the cache, which holds only the namespaces that carry our label and may be behind.
	direct client.Reader
	told   told
}

// scope is one Spoke during one Reconcile, and what the phases found out.
type scope struct {
	spoke     *v1alpha1.Spoke
	namespace string
	id        identity.ID
	now       time.Time

	// usable: the namespace is there and ours; otherwise conflict says why it cannot be, or is "" when that is not known.
	usable   bool
	conflict string
	// lost: only the cache still has the Spoke, or has it deleted; nothing is made for it or taken away, and nothing said.
	lost bool
	join joinState
	seen

	// after is when to look again; zero: when something changes.
	after time.Duration
}

// again asks for another look in d at the latest.
func (s *scope) again(d time.Duration) {
	if s.after == 0 || d < s.after {
		s.after = d
	}
}

// Reconcile brings one Spoke up to date: fetch, phases in order, one status patch.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	// Before everything that exists is taken in, every spoke would look as if it had never been seen.
	select {
	case <-r.Liveness.Synced():
	case <-ctx.Done():
		return ctrl.Result{}, ctx.Err()
	}
	spoke := &v1alpha1.Spoke{}
	if err := r.client.Get(ctx, req.NamespacedName, spoke); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	s := &scope{
		spoke:     spoke,
		namespace: identity.SpokeNamespace(spoke.Name),
		id:        identity.ID{Fleet: r.Fleet, Name: spoke.Name, UID8: identity.UID8Of(spoke.Name, spoke.UID, spoke.Status.Identity)},
		now:       r.Clock.Now(),
	}
	if !spoke.DeletionTimestamp.IsZero() {
		err := errors.Join(r.observe(ctx, s), r.remove(ctx, s))
		return ctrl.Result{RequeueAfter: s.after}, err
	}
	// Before anything else exists: what is made later must be taken away again.
	if err := r.ensureFinalizer(ctx, spoke); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := spoke.DeepCopy()
	defer func() { err = errors.Join(err, r.patchStatus(ctx, before, s)) }()

	for _, phase := range []func(context.Context, *scope) error{
		r.ensureNamespace,
		r.ensureAccess,
		r.ensureJoin,
		r.observe,
	} {
		// A phase that fails keeps none of the others from being told: the status says what is known.
		err = errors.Join(err, phase(ctx, s))
	}
	return ctrl.Result{RequeueAfter: s.after}, err
}

func (r *reconciler) ensureFinalizer(ctx context.Context, spoke *v1alpha1.Spoke) error {
	before := spoke.DeepCopy()
	if !controllerutil.AddFinalizer(spoke, Finalizer) {
		return nil
	}
	return r.client.Patch(ctx, spoke, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// observe takes in what others know of the spoke.
func (r *reconciler) observe(_ context.Context, s *scope) error {
	s.seen = r.look(s.spoke.Name)
	r.told.set(s.spoke.Name, s.seen)
	return nil
}

// isClosed: nil counts as closed.
func isClosed(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// patchStatus writes the status when it changed, and an Event for each condition that did.
func (r *reconciler) patchStatus(ctx context.Context, before *v1alpha1.Spoke, s *scope) error {
	if s.lost {
		return nil
	}
	describe(s)
	if equality.Semantic.DeepEqual(before.Status, s.spoke.Status) {
		return nil
	}
	patch := client.MergeFrom(before)
	if before.Status.Identity != s.spoke.Status.Identity {
		// The Identity service writes it too, when the spoke joins: what it wrote counts, and may not be in the cache yet.
		patch = client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	}
	if err := r.client.Status().Patch(ctx, s.spoke, patch); err != nil {
		return client.IgnoreNotFound(err)
	}
	r.tell(before, s.spoke)
	return nil
}

// setup watches Spokes, what belongs to them, and whatever changes what their status says.
func (r *reconciler) setup(mgr manager.Manager) error {
	changes := make(chan event.GenericEvent)
	if err := mgr.Add(&changePump{reconciler: r, out: changes}); err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).
		Named("spoke").
		WithOptions(controllerOptions(r.Options)).
		// Changes of the status count, although it is only ours to write: after an outage of the API server a cache that is
		// behind shows the status before the last write, so that a look at it finds nothing to write. What arrives later
		// has to be looked at again.
		Watches(&v1alpha1.Spoke{}, spokeEvents()).
		Watches(&corev1.Namespace{}, ownedEvents()).
		Watches(&corev1.ServiceAccount{}, ownedEvents()).
		Watches(&corev1.Secret{}, ownedEvents()).
		Watches(&rbacv1.Role{}, ownedEvents()).
		Watches(&rbacv1.RoleBinding{}, ownedEvents()).
		WatchesRawSource(source.Channel(changes, spokeEvents())).
		Complete(r)
}

// owner is the spoke that an object belongs to, by its namespace; a namespace says it by a label. "" when to none.
func owner(o client.Object) string {
	if o.GetNamespace() == "" {
		return o.GetLabels()[spokeLabel]
	}
	name, ok := strings.CutPrefix(o.GetNamespace(), identity.SpokeNamespace(""))
	if !ok {
		return ""
	}
	return name
}
