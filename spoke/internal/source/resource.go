package source

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// ExportKey as an annotation or label, on a resource or on its namespace, with the value "false" keeps it out of the fleet
// and of this cluster's own routes.
const ExportKey = "isthmus.dev/export"

// Key names a resource: the first three segments of its path.
type Key struct {
	Namespace string
	Type      v1alpha1.ResourceType
	Name      string
}

// Compare orders by namespace, type and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Type, o.Type), cmp.Compare(k.Name, o.Name))
}

// String is the resource's path.
func (k Key) String() string { return "/" + k.Namespace + "/" + string(k.Type) + "/" + k.Name }

// Resource is something of this cluster that other clusters may call, in no platform's words.
type Resource struct {
	Namespace string
	Type      v1alpha1.ResourceType
	Name      string
	// Service that backs the resource, in the same namespace, and the number of the Service's port.
	Service string
	Port    int32
	// Protocols, sorted.
	Protocols []v1alpha1.Protocol
	// RequestTimeoutSeconds is the longest wait for the first byte of a response; 0: the default of the type.
	RequestTimeoutSeconds int32
	// Labels chosen for policy, sorted by key.
	Labels []v1alpha1.Label
	// Created is the creation time of the object.
	Created time.Time
}

// Key of the resource.
func (r Resource) Key() Key { return Key{r.Namespace, r.Type, r.Name} }

// Equal says whether nothing differs.
func (r Resource) Equal(o Resource) bool {
	return r.Key() == o.Key() && r.Service == o.Service && r.Port == o.Port && slices.Equal(r.Protocols, o.Protocols) &&
		r.RequestTimeoutSeconds == o.RequestTimeoutSeconds && slices.EqualFunc(r.Labels, o.Labels, equalLabels) && r.Created.Equal(o.Created)
}

func equalLabels(a, b v1alpha1.Label) bool {
	return a.Key == b.Key && (a.Value == nil) == (b.Value == nil) && (a.Value == nil || *a.Value == *b.Value)
}

// Endpoint is one address behind a resource.
type Endpoint struct {
	Addr netip.AddrPort
	// Ready: it takes new requests.
	Ready bool
	// Serving without Ready: it is going, and finishes what it has.
	Serving bool
}

// AnyReady says whether one of the endpoints takes new requests.
func AnyReady(endpoints []Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.Ready })
}

// OptedOut says whether an object is kept at home by its own annotation or label.
func OptedOut(o metav1.Object) bool {
	return o.GetAnnotations()[ExportKey] == "false" || o.GetLabels()[ExportKey] == "false"
}
