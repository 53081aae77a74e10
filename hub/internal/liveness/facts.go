package liveness

import (
	"net/netip"
	"slices"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Availability says whether a spoke renews its Lease.
type Availability int

const (
	// NeverSeen: no Lease has been seen, or there is no such Spoke.
	NeverSeen Availability = iota
	// Available: the Lease was renewed within the lease duration.
	Available
	// Silent: it was not.
	Silent
)

// String is the name of the constant.
func (a Availability) String() string {
	return [...]string{"NeverSeen", "Available", "Silent"}[a]
}

// SpokeFacts is what the data plane needs to know of a spoke.
type SpokeFacts struct {
	Availability Availability
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
}

func (k Knowledge) equal(o Knowledge) bool {
	return k.Availability == o.Availability && k.Reported == o.Reported && k.Version == o.Version && k.Session == o.Session &&
		slices.Equal(k.Routers, o.Routers) && slices.Equal(k.Accepted, o.Accepted) && slices.Equal(k.Refused, o.Refused)
}
