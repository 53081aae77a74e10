package spoke

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// TestAnIdentityThatWasKept stays in the status, and is noted as withdrawn before the Spoke is gone.
func TestAnIdentityThatWasKept(t *testing.T) {
	var mu sync.Mutex
	var withdrawn []string
	failing := true
	f := start(t, func(o *Options, _ *liveness.Options) {
		o.Withdrawn = func(_ context.Context, name, uid8 string) error {
			mu.Lock()
			defer mu.Unlock()
			if failing {
				return errors.New("the API server is away")
			}
			withdrawn = append(withdrawn, name+"/"+uid8)
			return nil
		}
	})
	f.spoke("kept")
	s := f.condition("kept", v1alpha1.SpokeJoined, metav1.ConditionFalse, v1alpha1.ReasonAwaitingEnrolment)
	const identity = "spiffe://fleet/spoke/kept/0badcafe"
	before := s.DeepCopy()
	s.Status.Identity = identity // as the Identity service writes it
	f.Expect(api.Status().Patch(f.ctx, s, client.MergeFrom(before))).To(gomega.Succeed())
	f.join("kept")
	f.create(lease("kept"))
	s = f.condition("kept", v1alpha1.SpokeJoined, metav1.ConditionTrue, v1alpha1.ReasonEnrolled)
	f.Expect(s.Status.Identity).To(gomega.Equal(identity))

	f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
	f.finalize("isthmus-spoke-kept")
	there := func() error { return f.get(&v1alpha1.Spoke{}, "", "kept") }
	f.Consistently(there, "500ms").Should(gomega.Succeed(), "its identity is not noted yet")
	mu.Lock()
	failing = false
	mu.Unlock()
	f.Eventually(func() bool { return apierrors.IsNotFound(there()) }).Should(gomega.BeTrue())
	mu.Lock()
	defer mu.Unlock()
	f.Expect(withdrawn).To(gomega.ContainElement("kept/0badcafe"))
}
