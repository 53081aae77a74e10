package spoke

import (
	"strings"
	"testing"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

func TestTrustReasons(t *testing.T) {
	inForce, now := identity.Trust{Bundle: "b0", Authority: "a0"}, v1alpha1.TrustReport{Bundle: "b0", Authority: "a0"}
	for _, c := range []struct {
		uses   v1alpha1.TrustReport
		badCA  string
		status metav1.ConditionStatus
		reason string
	}{
		{v1alpha1.TrustReport{}, "", metav1.ConditionUnknown, v1alpha1.ReasonTrustNotReported},
		{now, "", metav1.ConditionTrue, v1alpha1.ReasonTrustInForce},
		{v1alpha1.TrustReport{Bundle: "b1", Authority: "a0"}, "", metav1.ConditionFalse, v1alpha1.ReasonBundleOutdated},
		{v1alpha1.TrustReport{Bundle: "b0", Authority: "a1"}, "", metav1.ConditionFalse, v1alpha1.ReasonLeafOutdated},
		{now, "tls.key is of another key", metav1.ConditionTrue, v1alpha1.ReasonCAUnusable},
		{v1alpha1.TrustReport{Bundle: "b0", Authority: "a1"}, "tls.key is of another key", metav1.ConditionFalse, v1alpha1.ReasonLeafOutdated},
	} {
		got := trustCurrent(&scope{seen: seen{known: liveness.Knowledge{Trust: c.uses}, inForce: inForce, badCA: c.badCA}})
		if got.Status != c.status || got.Reason != c.reason || !strings.Contains(got.Message, c.badCA) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// TestAnUnusableCAReachesTheStatus: as soon as it is found, and until it is mended.
func TestAnUnusableCAReachesTheStatus(t *testing.T) {
	f := start(t)
	f.spoke("trusting")
	f.join("trusting")
	told := func(want gomega.OmegaMatcher) {
		f.Eventually(func() string {
			var s v1alpha1.Spoke
			f.Expect(f.get(&s, "", "trusting")).To(gomega.Succeed())
			if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeTrustCurrent); c != nil {
				return c.Message
			}
			return ""
		}).Should(want)
	}
	told(gomega.ContainSubstring("has not said yet"))
	f.engine.change(func() { f.engine.badCA = "tls.key is of another key" })
	told(gomega.ContainSubstring("isthmus-ca holds cannot be used: tls.key is of another key"))
	f.engine.change(func() { f.engine.badCA = "" })
	told(gomega.And(gomega.ContainSubstring("has not said yet"), gomega.Not(gomega.ContainSubstring("isthmus-ca"))))
}
