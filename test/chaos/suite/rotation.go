package suite

import (
	"bytes"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// rotateCA asks for another CA of the fleet and waits until it is the only one and every spoke has a leaf of it.
func rotateCA(ctx context.Context, s *stage) error {
	hub := s.fleet.Hub.client
	var trust corev1.Secret
	key := client.ObjectKey{Namespace: system, Name: "isthmus-trust"}
	if err := hub.Get(ctx, key, &trust); err != nil {
		return err
	}
	before := trust.Data["tls.crt"]
	ca := &corev1.Secret{}
	ca.Namespace, ca.Name = system, "isthmus-ca"
	ask := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/rotate-ca":"now"}}}`))
	if err := hub.Patch(ctx, ca, ask); err != nil {
		return err
	}
	return s.await(ctx, "the rotation of the CA", func(ctx context.Context) error {
		if err := hub.Get(ctx, key, &trust); err != nil {
			return err
		}
		if phase := trust.Annotations["isthmus.dev/rotation-phase"]; phase != "Steady" || bytes.Equal(trust.Data["tls.crt"], before) {
			return fmt.Errorf("phase %s, waits for %q", phase, trust.Annotations["isthmus.dev/rotation-waiting-for"])
		}
		var spokes v1alpha1.SpokeList
		if err := hub.List(ctx, &spokes); err != nil {
			return err
		}
		for i := range spokes.Items {
			if !meta.IsStatusConditionTrue(spokes.Items[i].Status.Conditions, v1alpha1.SpokeTrustCurrent) {
				return fmt.Errorf("%s: %+v", spokes.Items[i].Name, meta.FindStatusCondition(spokes.Items[i].Status.Conditions, v1alpha1.SpokeTrustCurrent))
			}
		}
		return nil
	})
}
