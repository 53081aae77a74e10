package spoke

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// maxNamed is how many spokes a message names.
const maxNamed = 8

func available(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeAvailable, Status: metav1.ConditionUnknown}
	switch s.known.Availability {
	case liveness.Available:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed, "the spoke renews its Lease"
	case liveness.Silent:
		c.Reason, c.Message = v1alpha1.ReasonLeaseExpired, "the spoke has stopped renewing its Lease; its places are used last"
	case liveness.Held:
		c.Reason = v1alpha1.ReasonMassExpiry
		c.Message = "the spoke has stopped renewing its Lease together with too many others: the hub may be cut off, so its places are used as before"
	case liveness.Removed:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonUnreachable
		c.Message = "the spoke has stopped renewing its Lease and a quorum of other spokes cannot reach its routers; its places are removed until one of the two is over"
	default:
		c.Reason, c.Message = v1alpha1.ReasonNeverSeen, "the spoke has not written a Lease yet"
	}
	return c
}

func connected(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeConnected, Status: metav1.ConditionFalse}
	r := s.known.Reach
	told := fmt.Sprintf("%d of %d spokes that can tell cannot reach its routers: %s", len(r.Against), r.Witnesses, some(r.Against))
	switch {
	case r.Suspect:
		c.Reason = v1alpha1.ReasonReachesFewPeers
		c.Message = "its routers cannot reach more than half of the available spokes: it is more likely cut off itself, so what it says of them is not counted"
	case len(r.Against) >= federate.Quorum(r.Witnesses):
		c.Reason, c.Message = v1alpha1.ReasonUnreachableByQuorum, told
		if s.known.Availability == liveness.Available {
			c.Message += "; it stays in use, since it renews its Lease"
		}
	case len(r.Against) > 0:
		c.Reason, c.Message = v1alpha1.ReasonUnreachableBySome, told
	case r.Witnesses == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonNoWitness, "no other available spoke probes its routers"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonAllReachable, "no spoke that can tell reports its routers as unreachable"
	}
	if r.Ignored > 0 {
		c.Message += "; its report names spokes that do not exist, itself, or one twice as unreachable: left out of account"
	}
	return c
}

// some names the first few of a list.
func some(names []string) string {
	if len(names) > maxNamed {
		return strings.Join(slices.Clone(names[:maxNamed]), ", ") + fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

func draining(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeDrains, Status: metav1.ConditionTrue}
	switch {
	case s.spoke.Spec.State != v1alpha1.SpokeDraining:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonActive, "the spoke takes requests of other clusters"
	case s.drained:
		c.Reason, c.Message = v1alpha1.ReasonDrained, "every router that is connected to the hub has acknowledged: no new request is sent here; open streams may go on"
	default:
		c.Reason, c.Message = v1alpha1.ReasonDraining, "routers of other clusters are being told to send no new requests"
	}
	return c
}
