package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// forget deletes what a cluster has said of itself on the hub.
func forget(role string) Step {
	return func(ctx context.Context, s *stage) error {
		in := client.InNamespace("isthmus-spoke-" + s.expand(role))
		return errors.Join(s.fleet.Hub.client.DeleteAllOf(ctx, &v1alpha1.AgentSlice{}, in), s.fleet.Hub.client.DeleteAllOf(ctx, &v1alpha1.SpokeReport{}, in))
	}
}

// answersFrom waits until the client's edge is answered for an agent by a cluster.
func answersFrom(name, role string) Step {
	return func(ctx context.Context, s *stage) error {
		want := s.expand(role)
		return s.await(ctx, name+" at "+s.client.Name+" served by "+want, func(ctx context.Context) error { return s.served(ctx, s.client, name, want) })
	}
}

// unknown says whether the hub knows nothing of an agent.
func unknown(name string) Step {
	return func(ctx context.Context, s *stage) error {
		out, err := s.fleet.explain(ctx, s.path(name), s.client.Name)
		if err == nil || !strings.Contains(err.Error()+out, "unknown name") {
			return fmt.Errorf("the hub knows of %s, so this shows nothing: %s, %w", name, out, err)
		}
		return nil
	}
}

// gone waits until nobody answers for an agent at the client's edge.
func gone(name string) Step {
	return func(ctx context.Context, s *stage) error {
		return s.await(ctx, name+" is gone at "+s.client.Name, func(ctx context.Context) error {
			by, err := s.ask(ctx, s.client, name)
			if err == nil {
				return fmt.Errorf("%s answers", by)
			}
			if !strings.Contains(err.Error(), "404") {
				return err
			}
			return nil
		})
	}
}
