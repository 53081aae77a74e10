package federate

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Key names a resource in the fleet.
type Key struct {
	Namespace string
	Type      v1alpha1.ResourceType
	Name      string
}

// Path is the key as the prefix of a URL path, /namespace/type/name.
func (k Key) Path() string { return "/" + k.Namespace + "/" + string(k.Type) + "/" + k.Name }

// Compare orders keys by namespace, type and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Type, o.Type), strings.Compare(k.Name, o.Name))
}

// Properties are what all places of a resource share.
type Properties struct {
	Protocols      []v1alpha1.Protocol // sorted, without repetition
	TimeoutSeconds int32               // 0: the default of the type
	Labels         []Label             // sorted by key
}

// Label is a label that policies may select by.
type Label struct{ Key, Value string }

// Entry is one spoke's declaration of a resource.
type Entry struct {
	Key
	Properties
	Spoke string
	Ready bool
	Held  bool     // no slice declares it now; kept because the spoke's report and slices do not agree
	From  []string // the AgentSlices that declare it, sorted
}

// Lease is what is known of a spoke's Lease.
type Lease int

const (
	LeaseLive    Lease = iota // renewed in time, or not yet late
	LeaseExpired              // late by the hub's clock
)

// Point is a place on the earth, in decimal degrees.
type Point struct{ Latitude, Longitude float64 }

// Spoke is a member cluster as far as places are concerned.
type Spoke struct {
	Name     string
	UID8     string // of its identity
	UID      string // of the object
	Created  time.Time
	Region   string
	Zone     string
	Point    *Point // nil: unknown
	Draining bool
	Lease    Lease
	Removed  bool             // a quorum of other spokes cannot reach its routers, and its Lease has expired
	Routers  []netip.AddrPort // where its routers are reached; may be empty
}

// Older orders spokes by age, then name: the first decides what places share.
func Older(a, b Spoke) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
}

// Place is a spoke where a resource is declared.
type Place struct {
	Spoke string
	Ready bool
	Held  bool
}

// Resource is one resource of the fleet.
type Resource struct {
	Key
	Properties         // as Decider declares them
	Decider    string  // the oldest spoke that declares it
	Places     []Place // sorted by age of the spoke; never empty
}

// Serving are the spokes that requests are sent to: those with a ready endpoint, sorted by age; empty when none has one.
func (r Resource) Serving() []string {
	var out []string
	for _, p := range r.Places {
		if p.Ready {
			out = append(out, p.Spoke)
		}
	}
	return out
}

// Conflict says that a spoke's properties of a resource are not used, because an older one declares others.
type Conflict struct {
	Key
	Spoke   string   // whose properties are not used; it remains a place
	Decider string   // whose are
	Fields  []string // "protocols", "requestTimeoutSeconds", "labels"
}
