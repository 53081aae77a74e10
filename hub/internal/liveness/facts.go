package liveness

import (
	"net/netip"
	"slices"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// Availability is what federate decided of whether a spoke is there.
type Availability = federate.Presence

// The values of Availability; federate explains them.
const (
	NeverSeen = federate.NeverSeen
	Available = federate.Available
	Held      = federate.Held
	Silent    = federate.Silent
	Removed   = federate.Removed
)

// SpokeFacts is what the data plane needs to know of a spoke.
type SpokeFacts struct {
	Availability Availability
	// Reach is what other spokes say of it, and what its own word is worth. Shared: not to be changed.
	Reach federate.Reach
	// Routers are the accepted addresses, resolved, in the order of the report. Shared: not to be changed.
	Routers []netip.AddrPort
}

// Refusal is a reported address that is not used, with the reason.
type Refusal struct {
	Address v1alpha1.RouterAddress
	Reason  string
}

// Knowledge is everything observed of a spoke: facts for the data plane, the rest for the Spoke's status.
type Knowledge struct {
	SpokeFacts
	// Reported is false while there is no valid report.
	Reported bool
	// Accepted and Refused addresses as the report names them.
	Accepted []v1alpha1.RouterAddress
	Refused  []Refusal
	// Version and Session of the report.
	Version, Session string
	// Trust is what the report says that the spoke uses; zero: nothing.
	Trust v1alpha1.TrustReport
}

func (k Knowledge) equal(o Knowledge) bool {
	return k.verdict().Equal(o.verdict()) && k.Reported == o.Reported && k.Version == o.Version && k.Session == o.Session && k.Trust == o.Trust &&
		slices.Equal(k.Routers, o.Routers) && slices.Equal(k.Accepted, o.Accepted) && slices.Equal(k.Refused, o.Refused)
}

func (k Knowledge) verdict() federate.Verdict {
	return federate.Verdict{Presence: k.Availability, Reach: k.Reach}
}
