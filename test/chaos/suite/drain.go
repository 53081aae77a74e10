package suite

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// setState announces what a cluster's Spoke is to be: Active or Draining.
func setState(role string, state v1alpha1.SpokeState) Step {
	return func(ctx context.Context, s *stage) error {
		spoke := &v1alpha1.Spoke{}
		spoke.Name = s.expand(role)
		return s.fleet.Hub.client.Patch(ctx, spoke, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"state":%q}}`, state)))
	}
}

// drained waits until the hub says that no router sends new requests to the serving cluster any more.
func drained(ctx context.Context, s *stage) error {
	return s.await(ctx, s.primary.Name+" is drained", func(ctx context.Context) error {
		spoke := &v1alpha1.Spoke{}
		if err := s.fleet.Hub.client.Get(ctx, client.ObjectKey{Name: s.primary.Name}, spoke); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(spoke.Status.Conditions, v1alpha1.SpokeDrains); c == nil || c.Reason != v1alpha1.ReasonDrained {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}
