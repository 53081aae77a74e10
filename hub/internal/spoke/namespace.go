package spoke

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
)

// conflictRetry is how often a namespace that is not ours is looked at: the cache does not hold it.
const conflictRetry = 10 * time.Second

// lostRetry is how often a Spoke is looked at that only the cache has, or has deleted.
const lostRetry = time.Second

// ensureNamespace makes the spoke's namespace. One that exists is taken only when it was made for this very Spoke.
func (r *reconciler) ensureNamespace(ctx context.Context, s *scope) error {
	var ns corev1.Namespace
	err := r.client.Get(ctx, client.ObjectKey{Name: s.namespace}, &ns)
	if apierrors.IsNotFound(err) {
		if there, err := r.exists(ctx, s); err != nil || !there {
			return err
		}
		ns = corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:        s.namespace,
			Labels:      s.labels(),
			Annotations: map[string]string{hubidentity.SpokeUIDAnnotation: string(s.spoke.UID)},
		}}
		if err = r.client.Create(ctx, &ns); apierrors.IsAlreadyExists(err) {
			err = r.direct.Get(ctx, client.ObjectKey{Name: s.namespace}, &ns)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("namespace %s: %w", s.namespace, err)
	case ns.Annotations[hubidentity.SpokeUIDAnnotation] != string(s.spoke.UID):
		s.conflict = fmt.Sprintf("namespace %s exists and was not made for this Spoke: remove it, or choose another name", s.namespace)
		s.again(conflictRetry)
		return nil
	case !ns.DeletionTimestamp.IsZero():
		if !hasJoined(s.spoke) { // one that has does not join again over it, and its routers stay where they were
			s.conflict = fmt.Sprintf("namespace %s is being deleted; it is made again when it is gone", s.namespace)
		}
		s.again(conflictRetry)
		return nil
	}
	s.usable = true
	if ns.Labels[managedByLabel] == managedBy && ns.Labels[spokeLabel] == s.spoke.Name {
		return nil
	}
	before := ns.DeepCopy()
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	for k, v := range s.labels() {
		ns.Labels[k] = v
	}
	return r.client.Patch(ctx, &ns, client.MergeFrom(before))
}

// labels are on everything that belongs to the spoke: the cache and the watches go by them.
func (s *scope) labels() map[string]string {
	return map[string]string{managedByLabel: managedBy, spokeLabel: s.spoke.Name}
}

func (s *scope) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.namespace, Name: name, Labels: s.labels()}
}

// exists asks the API server whether the Spoke is still there, and being deleted if it is in the cache, before anything is made for it or
// taken away: a store that was emptied or restored under a hub that runs may say otherwise than the cache does still. What was made for it then
// would be in the way of the one that comes after it, and what was taken away is that of one that came back.
func (r *reconciler) exists(ctx context.Context, s *scope) (bool, error) {
	var now v1alpha1.Spoke
	err := r.direct.Get(ctx, client.ObjectKeyFromObject(s.spoke), &now)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("Spoke %s, past the cache: %w", s.spoke.Name, err)
	}
	if err == nil && now.UID == s.spoke.UID && now.DeletionTimestamp.IsZero() == s.spoke.DeletionTimestamp.IsZero() {
		return true, nil
	}
	s.lost = true
	s.again(lostRetry)
	return false, nil
}
