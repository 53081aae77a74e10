package hub

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// members are the spokes that a rotation of the CA concerns: those that have joined and are not being deleted.
func (h *hub) members() ([]hubidentity.Member, bool) {
	select {
	case <-h.liveness.Synced():
	default:
		return nil, false
	}
	var spokes v1alpha1.SpokeList
	if err := h.mgr.GetCache().List(context.Background(), &spokes); err != nil {
		return nil, false
	}
	var out []hubidentity.Member
	for i := range spokes.Items {
		s := &spokes.Items[i]
		if !s.DeletionTimestamp.IsZero() || !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeJoined) {
			continue
		}
		k := h.liveness.Get(s.Name)
		out = append(out, hubidentity.Member{
			Name: s.Name, Available: k.Availability == liveness.Available,
			Uses: identity.Trust{Bundle: k.Trust.Bundle, Authority: k.Trust.Authority},
		})
	}
	return out, true
}
