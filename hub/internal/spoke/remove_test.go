package spoke

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// programmed joins a spoke that renews its Lease, with a set of one program that its applier has applied.
func (f *fixture) programmed(name string) (*v1alpha1.Spoke, *v1alpha1.GatewayProgramSet) {
	s := f.spoke(name)
	f.join(name)
	f.create(lease(name))
	f.condition(name, v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	set := &v1alpha1.GatewayProgramSet{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-" + name, Name: v1alpha1.ProgramSetName}}
	set.Spec = v1alpha1.GatewayProgramSetSpec{Epoch: "e", Programs: v1alpha1.ProgramDigest{Count: ptr.To(int32(1)), Hash: "0000000000000000"}}
	f.create(set)
	f.applied(set)
	return s, set
}

// applied says what an applier says that has done all of a set.
func (f *fixture) applied(set *v1alpha1.GatewayProgramSet) {
	now := metav1.Now()
	set.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ProgramSetReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady, LastTransitionTime: now, ObservedGeneration: set.Generation},
		{Type: v1alpha1.ProgramSetStale, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonComplete, LastTransitionTime: now, ObservedGeneration: set.Generation},
	}
	f.Expect(api.Status().Update(f.ctx, set)).To(gomega.Succeed())
}

// TestDeletionWaitsForTheApplier: the spoke keeps its rights until it has said that what was programmed is gone.
func TestDeletionWaitsForTheApplier(t *testing.T) {
	f := start(t, func(_ *Options, l *liveness.Options) { l.LeaseDuration = time.Hour })
	s, set := f.programmed("progs")
	f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
	f.Eventually(f.withdrawals).Should(gomega.ContainElement("progs"))
	going := func() bool {
		var n corev1.Namespace
		return f.get(&n, "", set.Namespace) != nil || !n.DeletionTimestamp.IsZero()
	}
	f.Consistently(going, "500ms").Should(gomega.BeFalse(), "its program is still counted")
	set.Spec.Programs.Count = ptr.To(int32(0))
	f.Expect(api.Update(f.ctx, set)).To(gomega.Succeed())
	f.Consistently(going, "500ms").Should(gomega.BeFalse(), "the applier has not said that it is gone")
	f.applied(set)
	f.Eventually(going).Should(gomega.BeTrue())
	f.finalize(set.Namespace)
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", "progs")) }).Should(gomega.BeTrue())
}

// TestDeletionDoesNotWaitForEver: an applier that says nothing, and one of a cluster that is gone.
func TestDeletionDoesNotWaitForEver(t *testing.T) {
	f := start(t, func(_ *Options, l *liveness.Options) { l.LeaseDuration = time.Hour })
	s, set := f.programmed("mutter")
	f.clock.Step(time.Hour)
	f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
	f.event("mutter", "GatewaysLeft", "isthmus-gateways")
	f.finalize(set.Namespace)
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", "mutter")) }).Should(gomega.BeTrue())
}

func TestDeletionDoesNotWaitForASilentSpoke(t *testing.T) {
	f := start(t, func(_ *Options, l *liveness.Options) {
		l.LeaseDuration, l.Tick, l.MassPercent = time.Second, 50*time.Millisecond, 100
	})
	s, set := f.programmed("silent")
	f.condition("silent", v1alpha1.SpokeAvailable, metav1.ConditionUnknown, v1alpha1.ReasonLeaseExpired)
	f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
	f.finalize(set.Namespace)
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", "silent")) }).Should(gomega.BeTrue())
}
