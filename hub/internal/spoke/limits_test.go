package spoke

import (
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

// TestLimitsAreTold: which limit, how many, what to do; and when it is over.
func TestLimitsAreTold(t *testing.T) {
	f := start(t)
	f.spoke("storm")
	f.join("storm")
	set := func(o registry.Overload) {
		f.engine.change(func() { f.engine.counts["storm"] = counts{overload: o} })
	}
	set(registry.Overload{Refused: 7, Limits: []string{"entries (3, --spoke-max-entries)"}})
	s := f.condition("storm", v1alpha1.SpokeLimited, metav1.ConditionTrue, v1alpha1.ReasonLimitExceeded)
	for _, c := range s.Status.Conditions {
		if c.Type == v1alpha1.SpokeLimited {
			f.Expect(c.Message).To(gomega.And(gomega.ContainSubstring("7 resources"), gomega.ContainSubstring("--spoke-max-entries"), gomega.ContainSubstring("export fewer")))
		}
	}
	f.event("storm", v1alpha1.ReasonLimitExceeded, "7 resources")
	set(registry.Overload{Waiting: 5})
	f.condition("storm", v1alpha1.SpokeLimited, metav1.ConditionTrue, v1alpha1.ReasonChangeRateExceeded)
	set(registry.Overload{})
	f.condition("storm", v1alpha1.SpokeLimited, metav1.ConditionFalse, v1alpha1.ReasonWithinLimits)
}

// TestWhatWasSoForAMomentIsTakenBack: something else than a build had the Spoke looked at, while things were otherwise for a
// moment; no round of the pump has seen it.
func TestWhatWasSoForAMomentIsTakenBack(t *testing.T) {
	f := start(t)
	f.spoke("moment")
	f.join("moment")
	s := f.condition("moment", v1alpha1.SpokeLimited, metav1.ConditionFalse, v1alpha1.ReasonWithinLimits)
	silently := func(c counts) {
		f.engine.mu.Lock()
		defer f.engine.mu.Unlock()
		f.engine.counts["moment"] = c
	}
	silently(counts{overload: registry.Overload{Waiting: 5}})
	f.Expect(api.Patch(f.ctx, s, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"looked":"at"}}}`)))).To(gomega.Succeed())
	f.condition("moment", v1alpha1.SpokeLimited, metav1.ConditionTrue, v1alpha1.ReasonChangeRateExceeded)
	f.engine.change(func() { delete(f.engine.counts, "moment") })
	f.condition("moment", v1alpha1.SpokeLimited, metav1.ConditionFalse, v1alpha1.ReasonWithinLimits)
}
