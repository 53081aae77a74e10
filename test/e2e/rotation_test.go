package e2e

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func trustSecret(ctx context.Context) (*corev1.Secret, error) {
	var s corev1.Secret
	err := theFleet.hub.client.Get(ctx, client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-trust"}, &s)
	return &s, err
}

const phaseAnnotation = "isthmus.dev/rotation-phase"

// phase waits until the rotation is in one of the phases, in which the CA in force is another than before.
func phase(t *testing.T, before []byte, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("phase ", want), func(ctx context.Context) error {
		s, err := trustSecret(ctx)
		if err != nil {
			return err
		}
		p := s.Annotations[phaseAnnotation]
		for _, w := range want {
			if p == w && (p != "Steady" || !bytes.Equal(s.Data["tls.crt"], before)) {
				return nil
			}
		}
		return fmt.Errorf("phase %s, waits for %q", p, s.Annotations["isthmus.dev/rotation-waiting-for"])
	})
}

func trustCurrent(t *testing.T) {
	t.Helper()
	for _, c := range theFleet.clusters {
		eventually(t, c.name+" uses what is in force", func(ctx context.Context) error {
			var s v1alpha1.Spoke
			if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Name: c.name}, &s); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeTrustCurrent) {
				return fmt.Errorf("%+v", meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeTrustCurrent))
			}
			return nil
		})
	}
}

// TestCARotation replaces the fleet's CA under load, and kills the hub on the way: no request fails, no stream ends.
func TestCARotation(t *testing.T) {
	f := theFleet
	home, remote := f.clusters[1], f.clusters[2]
	ns := namespace(t, "rotation", remote)
	startAgent(t, remote, ns, "steady")
	path := "/" + ns + "/agent/steady"
	servedBy(t, home, path+"/health", remote.name)
	trustCurrent(t)
	s, err := trustSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := s.Data["tls.crt"]
	l := startLoad(t, 1, getAndPost(home.edge+path)...)
	stream := openEvents(t, home.edge+path+"/sse?interval=20ms")

	ca := &corev1.Secret{}
	ca.Namespace, ca.Name = "isthmus-system", "isthmus-ca"
	ask := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/rotate-ca":"now"}}}`))
	start := time.Now()
	if err := f.hub.client.Patch(t.Context(), ca, ask); err != nil {
		t.Fatal(err)
	}
	phase(t, before, "Distributing", "Reissuing", "Steady")
	f.platform.kill(t, &f.hub, "hub") // the next one goes on from what is stored
	phase(t, before, "Reissuing", "Steady")
	phase(t, before, "Steady")
	t.Logf("rotated in %s, the hub killed once", time.Since(start).Round(time.Second))
	trustCurrent(t)
	allAvailable(t)

	l.check(t)
	stream.flows(t, "after the rotation")
	startAgent(t, remote, ns, "after")
	servedBy(t, home, "/"+ns+"/agent/after/health", remote.name)
}
