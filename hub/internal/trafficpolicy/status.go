package trafficpolicy

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/engine"
)

// maxMessage bounds a condition's message, in bytes.
const maxMessage = 4096

// conditions say what became of a policy, without times and generation.
func conditions(f engine.PolicyFinding) []metav1.Condition {
	a := accepted(f)
	out := []metav1.Condition{a, enforced(f, a), resolved(f)}
	for i := range out {
		if m := out[i].Message; len(m) > maxMessage {
			out[i].Message = strings.ToValidUTF8(m[:maxMessage-3], "") + "..."
		}
	}
	return out
}

func accepted(f engine.PolicyFinding) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.PolicyAccepted, Status: metav1.ConditionFalse}
	switch {
	case f.Invalid != "":
		c.Reason, c.Message = v1alpha1.ReasonInvalid, f.Invalid
	case f.Targets == 0:
		c.Reason, c.Message = v1alpha1.ReasonTargetNotFound, "no cluster exports a resource of this namespace that targetRefs name or select"
	case f.InForce > 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonAccepted, fmt.Sprintf("decides for %d of %d resources", f.InForce, f.Targets)
	case f.Conflicted > 0:
		c.Reason = v1alpha1.ReasonConflicted
		c.Message = fmt.Sprintf("decides for none of %d resources: %s, of the same rank and older or first by name", f.Targets, named(f.Deciders))
	default:
		c.Reason = v1alpha1.ReasonOverridden
		c.Message = fmt.Sprintf("decides for none of %d resources: %s target them more closely", f.Targets, named(f.Deciders))
	}
	return c
}

func enforced(f engine.PolicyFinding, accepted metav1.Condition) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.PolicyEnforced, Status: metav1.ConditionFalse}
	switch {
	case accepted.Status != metav1.ConditionTrue:
		c.Reason, c.Message = v1alpha1.ReasonNotAccepted, "see Accepted"
	case f.Cut > 0:
		c.Reason = v1alpha1.ReasonSetLimitReached
		c.Message = fmt.Sprintf("a part is left out for %d resources: the fleet has too many combinations of places and policies", f.Cut)
	case f.InForce < f.Targets:
		c.Reason = v1alpha1.ReasonPartlyEnforced
		c.Message = fmt.Sprintf("other policies decide for %d of %d resources: %s", f.Targets-f.InForce, f.Targets, named(f.Deciders))
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonEnforced, "in force for all that it targets"
	}
	return c
}

func resolved(f engine.PolicyFinding) metav1.Condition {
	if len(f.Unknown) == 0 {
		return metav1.Condition{Type: v1alpha1.PolicyResolvedRefs, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonResolvedRefs,
			Message: "all spokes and regions that it names exist"}
	}
	return metav1.Condition{Type: v1alpha1.PolicyResolvedRefs, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnknownPlace,
		Message: "no Spoke is or names: " + strings.Join(f.Unknown, ", ") + "; the policy is used without them"}
}

// named are at most five names.
func named(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
