package suite

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// otherHub is a hub with one more argument, which counts before an earlier one of its name, for the time of a scenario.
type otherHub struct {
	argument string
	before   []string
}

func (h *otherHub) begin(ctx context.Context, s *stage) error {
	return s.hubArguments(ctx, func(args []string) []string {
		h.before = args
		return append(slices.Clone(args), h.argument)
	})
}

// end gives the hub the arguments that it had.
func (h *otherHub) end(ctx context.Context, s *stage) error {
	if h.before == nil {
		return nil
	}
	return s.hubArguments(ctx, func([]string) []string { return h.before })
}

// hubArguments gives the hub other arguments, made of those that it has, and waits until no replica runs with others.
func (s *stage) hubArguments(ctx context.Context, change func([]string) []string) error {
	hub := s.fleet.Hub.client
	d := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: system, Name: "isthmus-hub"}
	if err := hub.Get(ctx, key, d); err != nil {
		return err
	}
	before := d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Args = change(before.Spec.Template.Spec.Containers[0].Args)
	if err := hub.Patch(ctx, d, client.MergeFrom(before)); err != nil {
		return err
	}
	return s.await(ctx, "the hub with other arguments", func(ctx context.Context) error {
		if err := hub.Get(ctx, key, d); err != nil {
			return err
		}
		if st := d.Status; st.ObservedGeneration < d.Generation || st.UpdatedReplicas != *d.Spec.Replicas || st.Replicas != *d.Spec.Replicas || st.ReadyReplicas != *d.Spec.Replicas {
			return fmt.Errorf("%d replicas, %d of them new, %d ready", st.Replicas, st.UpdatedReplicas, st.ReadyReplicas)
		}
		return nil
	})
}
