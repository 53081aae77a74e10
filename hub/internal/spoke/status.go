package spoke

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// maxMessage bounds a condition's message, in bytes.
const maxMessage = 4096

// describe writes the status from what the phases found out. What a phase failed to read stays as it was: an API server
// that stumbles makes nobody look gone.
func describe(s *scope) {
	st := &s.spoke.Status
	switch {
	case s.usable:
		st.Namespace = s.namespace
	case s.conflict != "":
		st.Namespace = ""
	}
	st.Identity = s.id.URI()
	st.Routers = s.known.Accepted
	if s.known.Reported {
		st.Version = s.known.Version
	}
	set := func(c metav1.Condition) {
		c.ObservedGeneration = s.spoke.Generation
		c.LastTransitionTime = metav1.NewTime(s.now)
		if len(c.Message) > maxMessage {
			c.Message = c.Message[:maxMessage-3] + "..."
		}
		meta.SetStatusCondition(&st.Conditions, c)
	}
	if s.conflict != "" || s.join.known {
		set(joined(s))
	}
	set(available(s))
	set(connected(s))
	set(routerReady(s))
	if s.inForce.Bundle != "" {
		set(trustCurrent(s))
	}
	if s.built {
		st.Exported = ptr.To(int32(s.counts.exported))
		set(conflicted(s))
		set(stale(s))
		set(limited(s))
		set(draining(s))
	}
}

func joined(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeJoined, Status: metav1.ConditionFalse}
	switch {
	case s.conflict != "":
		c.Reason, c.Message = v1alpha1.ReasonNamespaceConflict, s.conflict
	case s.join.enrolled:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonEnrolled, "the spoke holds an identity"
	case s.join.failed && !s.join.expires.After(s.now):
		c.Reason, c.Message = v1alpha1.ReasonTokenExpired, "the join token has expired and no new one could be made yet"
	case s.join.expires.IsZero():
		c.Reason, c.Message = v1alpha1.ReasonAwaitingEnrolment, "a join token is being made"
	default:
		c.Reason = v1alpha1.ReasonAwaitingEnrolment
		c.Message = fmt.Sprintf("install the spoke chart with the values in Secret %s/join; its token is valid until %s",
			s.namespace, s.join.expires.UTC().Format(time.RFC3339))
	}
	return c
}

func routerReady(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeRouterReady, Status: metav1.ConditionFalse}
	var refused []string
	for _, f := range s.known.Refused {
		refused = append(refused, fmt.Sprintf("%s port %d: %s", f.Address.Host, f.Address.Port, f.Reason))
	}
	told := strings.Join(refused, "; ")
	switch {
	case len(s.known.Routers) > 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonRouterReported, "other clusters can be told where the router is"
		if told != "" {
			c.Message += "; refused: " + told
		}
	case told != "":
		c.Reason, c.Message = v1alpha1.ReasonAddressRefused, "no reported address can be used: "+told
	default:
		c.Reason, c.Message = v1alpha1.ReasonNoRouter, "the spoke has reported no router address: its router's Service needs a LoadBalancer or node address, or set the chart's value"
	}
	return c
}

func trustCurrent(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeTrustCurrent, Status: metav1.ConditionFalse}
	switch uses := s.known.Trust; {
	case uses.Bundle == "":
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonTrustNotReported, "the spoke has not said yet which certificates it and its routers use"
	case uses.Bundle != s.inForce.Bundle:
		c.Reason, c.Message = v1alpha1.ReasonBundleOutdated, "the spoke, or one of its routers, uses another trust bundle than the one in force; it has been asked to renew"
	case uses.Authority != s.inForce.Authority:
		c.Reason, c.Message = v1alpha1.ReasonLeafOutdated, "the spoke, or one of its routers, uses a certificate of another CA than the one in force; it has been asked to renew"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonTrustInForce, "the spoke and its routers use the trust bundle and the CA in force"
	}
	if s.badCA != "" {
		if c.Status == metav1.ConditionTrue {
			c.Reason = v1alpha1.ReasonCAUnusable
		}
		c.Message += "; it is the one before, since what Secret isthmus-ca holds cannot be used: " + s.badCA
	}
	return c
}

func conflicted(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeConflicted, Status: metav1.ConditionTrue}
	const where = "the status of its AgentSlices names each"
	switch {
	case s.counts.rejected > 0:
		c.Reason, c.Message = v1alpha1.ReasonEntriesRejected, fmt.Sprintf("%d entries rejected, %d in conflict; %s", s.counts.rejected, s.counts.conflicts, where)
	case s.counts.conflicts > 0:
		c.Reason, c.Message = v1alpha1.ReasonPropertiesConflict, fmt.Sprintf("%d resources differ from those of the same name elsewhere; %s", s.counts.conflicts, where)
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonNoConflict, "every entry is used as it stands"
	}
	return c
}

func stale(s *scope) metav1.Condition {
	if s.counts.stale {
		return metav1.Condition{Type: v1alpha1.SpokeStale, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIncomplete,
			Message: "the spoke's report and its slices do not agree; what is known of it, and what routers have of it, is kept until they do, or the Spoke is deleted"}
	}
	if lost := s.counts.lost; len(lost) > 0 {
		return metav1.Condition{Type: v1alpha1.SpokeStale, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonStoreRestored,
			Message: fmt.Sprintf("the hub's store turned out to be an earlier copy; what it lacks is withdrawn nowhere. When every Spoke is Available again, acknowledge by the key supersedes of ConfigMap isthmus-epoch: %s",
				strings.Join(lost, ","))}
	}
	return metav1.Condition{Type: v1alpha1.SpokeStale, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonComplete,
		Message: "the spoke's report and its slices agree"}
}

func limited(s *scope) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SpokeLimited, Status: metav1.ConditionTrue}
	var told []string
	if s.counts.cut > 0 {
		c.Reason = v1alpha1.ReasonPlacesCut
		told = append(told, fmt.Sprintf("of %d resources not all places are used, since the fleet has too many combinations of places: let fewer clusters export the same resources", s.counts.cut))
	}
	if n := len(s.counts.large); n > 0 {
		c.Reason = v1alpha1.ReasonLargeNamespace
		told = append(told, fmt.Sprintf("%d namespaces have so many resources that requests take longer, %s among them: spread the resources over more namespaces", n, s.counts.large[0]))
	}
	if o := s.counts.overload; o.Waiting > 0 {
		c.Reason = v1alpha1.ReasonChangeRateExceeded
		told = append(told, "the spoke changes faster than --spoke-change-rate; its changes are taken in later, the newest state of each slice at a time, and no other spoke waits for them")
	}
	if o := s.counts.overload; o.Refused > 0 {
		c.Reason = v1alpha1.ReasonLimitExceeded
		told = append(told, fmt.Sprintf("%d resources do not count, or not as they are now, since the spoke has reached its limit of %s; what counted before stays: "+
			"export fewer (isthmus.dev/export: \"false\"), or raise the limit at the hub", o.Refused, strings.Join(o.Limits, " and of ")))
	}
	if c.Message = strings.Join(told, "; "); c.Message == "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonWithinLimits, "what the spoke exports is within all limits"
	}
	return c
}

// tell writes an Event for each condition whose status or reason changed. A condition's first value is news only when
// something is wrong.
func (r *reconciler) tell(before, after *v1alpha1.Spoke) {
	for _, c := range after.Status.Conditions {
		old := meta.FindStatusCondition(before.Status.Conditions, c.Type)
		if old != nil && old.Status == c.Status && old.Reason == c.Reason {
			continue
		}
		kind := corev1.EventTypeNormal
		if isTrouble(c) {
			kind = corev1.EventTypeWarning
		}
		if old == nil && kind == corev1.EventTypeNormal {
			continue
		}
		if c.Reason == v1alpha1.ReasonStoreRestored { // told once, of the ConfigMap, and not of every Spoke
			continue
		}
		// That is told once, of the Secret, and not of every Spoke.
		if c.Reason == v1alpha1.ReasonCAUnusable || old != nil && old.Reason == v1alpha1.ReasonCAUnusable && c.Status == old.Status {
			continue
		}
		r.Recorder.Eventf(after, nil, kind, c.Reason, "Observe", "%s", tell.Note(c.Message))
	}
}

func isTrouble(c metav1.Condition) bool {
	switch c.Reason {
	case v1alpha1.ReasonNamespaceConflict, v1alpha1.ReasonTokenExpired, v1alpha1.ReasonLeaseExpired, v1alpha1.ReasonMassExpiry, v1alpha1.ReasonUnreachable,
		v1alpha1.ReasonUnreachableByQuorum, v1alpha1.ReasonReachesFewPeers, v1alpha1.ReasonAddressRefused,
		v1alpha1.ReasonPropertiesConflict, v1alpha1.ReasonEntriesRejected, v1alpha1.ReasonIncomplete, v1alpha1.ReasonStoreRestored, v1alpha1.ReasonLargeNamespace, v1alpha1.ReasonPlacesCut,
		v1alpha1.ReasonLimitExceeded, v1alpha1.ReasonChangeRateExceeded:
		return true
	}
	return false
}
