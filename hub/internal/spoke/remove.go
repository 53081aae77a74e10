package spoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// goneRetry is how often a namespace on its way out is looked at, should its last event be missed.
const goneRetry = 5 * time.Second

// gatewaysRetry is how often is asked whether a spoke's applier has removed its Gateways: nobody waits but the one who deletes
// the Spoke.
const gatewaysRetry = 200 * time.Millisecond

// remove takes a Spoke away: off the wire, then its credentials, then its namespace, then the finalizer. It is called
// again until all is gone; steps that are done are skipped by what is left of the spoke, so that any leader can go on.
func (r *reconciler) remove(ctx context.Context, s *scope) error {
	if !controllerutil.ContainsFinalizer(s.spoke, Finalizer) {
		return nil
	}
	if there, err := r.exists(ctx, s); err != nil || !there {
		return err
	}
	ns, err := r.ownNamespace(ctx, s)
	if err != nil {
		return err
	}
	if ns == nil || ns.DeletionTimestamp.IsZero() {
		if err := r.withdraw(ctx, s); err != nil {
			return err
		}
	}
	if ns != nil {
		s.again(goneRetry)
		if !ns.DeletionTimestamp.IsZero() {
			return nil
		}
		if gone, err := r.gatewaysGone(ctx, s); err != nil || !gone {
			s.again(gatewaysRetry)
			return err
		}
		if err := r.revoke(ctx, s); err != nil {
			return err
		}
		return client.IgnoreNotFound(r.client.Delete(ctx, ns, client.Preconditions{UID: &ns.UID}))
	}
	if r.Withdrawn != nil {
		if err := r.Withdrawn(ctx, s.id.Name, s.id.UID8); err != nil {
			return fmt.Errorf("note that the identity is withdrawn: %w", err)
		}
	}
	before := s.spoke.DeepCopy()
	controllerutil.RemoveFinalizer(s.spoke, Finalizer)
	return client.IgnoreNotFound(r.client.Patch(ctx, s.spoke, client.MergeFrom(before)))
}

// ownNamespace reads the spoke's namespace, past the cache; nil when there is none or it is not ours.
func (r *reconciler) ownNamespace(ctx context.Context, s *scope) (*corev1.Namespace, error) {
	var ns corev1.Namespace
	err := r.direct.Get(ctx, client.ObjectKey{Name: s.namespace}, &ns)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", s.namespace, err)
	}
	if ns.Annotations[hubidentity.SpokeUIDAnnotation] != string(s.spoke.UID) {
		return nil, nil
	}
	return &ns, nil
}

// withdraw takes the spoke off the wire and waits for the acknowledgements, for a bounded time: a client that does not
// answer keeps what it has for as long as it is cut off, but it cannot keep a Spoke from being deleted.
func (r *reconciler) withdraw(ctx context.Context, s *scope) error {
	wctx, cancel := context.WithTimeout(ctx, r.WithdrawTimeout)
	defer cancel()
	err := r.Withdrawer.Withdraw(wctx, s.spoke.Name, s.spoke.UID)
	late := s.now.Sub(s.spoke.DeletionTimestamp.Time) > r.WithdrawTimeout
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case late, errors.Is(err, context.DeadlineExceeded):
		log.FromContext(ctx).Info("deletion goes on without every acknowledgement", "spoke", s.spoke.Name, "reason", err.Error())
		r.Recorder.Eventf(s.spoke, nil, corev1.EventTypeWarning, "WithdrawalIncomplete", "Delete",
			"not every router has acknowledged within %s that the spoke is gone; the deletion goes on", r.WithdrawTimeout)
		return nil
	}
	return fmt.Errorf("withdraw: %w", err)
}

// gatewaysGone says whether nothing of what the hub programmed is left in the spoke's cluster, as its applier says; or that
// this is not to be waited for: nobody is there who could, nothing was programmed, or the time is over.
func (r *reconciler) gatewaysGone(ctx context.Context, s *scope) (bool, error) {
	var set v1alpha1.GatewayProgramSet
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1alpha1.ProgramSetName}, &set)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("programs of %s: %w", s.namespace, err)
	}
	ready := meta.FindStatusCondition(set.Status.Conditions, v1alpha1.ProgramSetReady)
	if ready == nil || ready.Reason == v1alpha1.ReasonGatewayAPIMissing {
		return true, nil
	}
	stale := meta.FindStatusCondition(set.Status.Conditions, v1alpha1.ProgramSetStale)
	count := ptr.Deref(set.Spec.Programs.Count, 0)
	if count == 0 && stale != nil && stale.Status == metav1.ConditionFalse && stale.ObservedGeneration == set.Generation {
		return true, nil
	}
	if s.known.Availability == liveness.Available && s.now.Sub(s.spoke.DeletionTimestamp.Time) <= r.WithdrawTimeout {
		return false, nil
	}
	r.Recorder.Eventf(s.spoke, nil, corev1.EventTypeWarning, "GatewaysLeft", "Delete",
		"the spoke has not said that its programmed Gateways are gone; if its cluster still exists: kubectl delete namespace isthmus-gateways there")
	return true, nil
}

// revoke takes the spoke's rights on the hub away: first what it may do, then who it is, then what it could join with.
func (r *reconciler) revoke(ctx context.Context, s *scope) error {
	for _, o := range []client.Object{
		&rbacv1.RoleBinding{ObjectMeta: objectMeta(s, objectName)},
		&rbacv1.Role{ObjectMeta: objectMeta(s, objectName)},
		&corev1.ServiceAccount{ObjectMeta: objectMeta(s, objectName)},
		&corev1.Secret{ObjectMeta: objectMeta(s, hubidentity.JoinSecretName)},
	} {
		if err := client.IgnoreNotFound(r.client.Delete(ctx, o)); err != nil {
			return fmt.Errorf("revoke %T: %w", o, err)
		}
	}
	return nil
}

func objectMeta(s *scope, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.namespace, Name: name}
}
