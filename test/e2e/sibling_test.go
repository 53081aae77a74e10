package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestARouterStartsFromItsSibling: with the hub dead, a router that is new, without a disk of before, serves what the other
// router of its cluster has.
func TestARouterStartsFromItsSibling(t *testing.T) {
	f := theFleet
	home, remote := f.clusters[1], f.clusters[2]
	ns := namespace(t, "sibling", remote)
	startAgent(t, remote, ns, "far")
	path := "/" + ns + "/agent/far/health"
	servedBy(t, home, path, remote.name)

	f.platform.hold(t, &f.hub, "hub")
	added := addRouter(t, home)
	eventually(t, path+" at the new router, asked itself", func(ctx context.Context) error {
		var status int
		r := home.kube.CoreV1().RESTClient().Get().Namespace("isthmus-system").Resource("pods").Name(added + ":8080").
			SubResource("proxy").Suffix(path).Do(ctx).StatusCode(&status)
		if err := r.Error(); err != nil || status != http.StatusOK {
			return fmt.Errorf("status %d: %w", status, err)
		}
		return nil
	})
}

// addRouter adds a replica to a cluster's routers until the end of the test, and returns its pod's name.
func addRouter(t *testing.T, c *cluster) string {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	key := client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-router"}
	if err := c.client.Get(t.Context(), key, sts); err != nil {
		t.Fatal(err)
	}
	before := *sts.Spec.Replicas
	scale := func(n int32) {
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
		if err := c.client.Patch(context.WithoutCancel(t.Context()), sts.DeepCopy(), patch); err != nil {
			t.Error(err)
		}
	}
	pod := fmt.Sprintf("isthmus-router-%d", before)
	t.Cleanup(func() {
		scale(before)
		// Nobody's stream is open there: no need to wait for its drain.
		err := c.kube.CoreV1().Pods(key.Namespace).Delete(context.WithoutCancel(t.Context()), pod, *metav1.NewDeleteOptions(0))
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	scale(before + 1)
	return pod
}
