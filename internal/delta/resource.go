package delta

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources that Isthmus serves.
const (
	ClusterType    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	AssignmentType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType     = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ExtensionType  = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	ListenerType   = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType      = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ScopeType      = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
)

// rank orders the types on a stream: what is needed goes before what needs it. Other types go last.
func rank(typeURL string) int {
	for i, t := range []string{ClusterType, AssignmentType, SecretType, ExtensionType, ListenerType, RouteType, ScopeType} {
		if t == typeURL {
			return i
		}
	}
	return 100
}

// Ref names a resource of any type.
type Ref struct{ Type, Name string }

// Resource is one xDS resource. It is shared by all streams and never changed.
type Resource struct {
	// Name of the resource.
	Name string
	// Version is Hash of the body: equal on every replica.
	Version string
	// Body is marshalled once.
	Body *anypb.Any
	// Needs are what a client must have acknowledged before it is given this resource. A need of a type to which the
	// stream has not subscribed is not waited for. A need of an assignment also holds the cluster of that name.
	Needs []Ref
}

// NewResource marshals a message, deterministically.
func NewResource(name string, m proto.Message, needs ...Ref) (Resource, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("marshal resource %s: %w", name, err)
	}
	body := &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: raw}
	return Resource{Name: name, Version: Hash(raw), Body: body, Needs: needs}, nil
}

// Hash of a body: xxhash64, 16 hexadecimal digits.
func Hash(body []byte) string { return fmt.Sprintf("%016x", xxhash.Sum64(body)) }

// overhead of a resource in a response beside its body and name, about.
const overhead = 64

func (r *Resource) size() int { return len(r.Body.GetValue()) + len(r.Name) + overhead }
