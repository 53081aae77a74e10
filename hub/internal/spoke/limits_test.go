package spoke

import (
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
