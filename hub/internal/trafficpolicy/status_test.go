package trafficpolicy

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/hub/internal/engine"
)

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		f    engine.PolicyFinding
		want string // reasons; those that are True with a plus
		says string
	}{
		{engine.PolicyFinding{Targets: 2, InForce: 2}, "+Accepted +Enforced +ResolvedRefs", "decides for 2 of 2"},
		{engine.PolicyFinding{}, "TargetNotFound NotAccepted +ResolvedRefs", "no cluster exports"},
		{engine.PolicyFinding{Invalid: "weights"}, "Invalid NotAccepted +ResolvedRefs", "weights"},
		{engine.PolicyFinding{Targets: 2, Conflicted: 2, Deciders: []string{"old"}}, "Conflicted NotAccepted +ResolvedRefs", "none of 2 resources: old"},
		{engine.PolicyFinding{Targets: 2, Deciders: []string{"close"}}, "Overridden NotAccepted +ResolvedRefs", "close target"},
		{engine.PolicyFinding{Targets: 3, InForce: 1, Conflicted: 1, Deciders: []string{"a", "b"}}, "+Accepted PartlyEnforced +ResolvedRefs", "2 of 3 resources: a, b"},
		{engine.PolicyFinding{Targets: 3, InForce: 3, Cut: 2}, "+Accepted SetLimitReached +ResolvedRefs", "for 2 resources"},
		{engine.PolicyFinding{Targets: 1, InForce: 1, Unknown: []string{"spoke gone"}}, "+Accepted +Enforced UnknownPlace", "spoke gone"},
	} {
		var reasons, told []string
		for _, x := range conditions(c.f) {
			sign := ""
			if x.Status == metav1.ConditionTrue {
				sign = "+"
			}
			reasons, told = append(reasons, sign+x.Reason), append(told, x.Message)
		}
		if got := strings.Join(reasons, " "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
		if !strings.Contains(strings.Join(told, "\n"), c.says) {
			t.Errorf("%+v: %q does not say %q", c.f, told, c.says)
		}
	}
}
