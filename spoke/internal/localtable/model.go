package localtable

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Key names a resource: the first three segments of its path.
type Key struct{ Namespace, Type, Name string }

// Path is the prefix under which clients ask for the resource.
func (k Key) Path() string { return "/" + k.Namespace + "/" + k.Type + "/" + k.Name }

// Backend is a port of a Service: what a pair of clusters stands for.
type Backend struct {
	Namespace, Service string
	Port               string // the Service port's number or name
}

// Endpoint is one pod's address and the port that it listens on.
type Endpoint struct {
	Address netip.Addr
	Port    uint16
	// Draining: the pod is going; it serves what it has, and new requests only when nothing else is left.
	Draining bool
}

// Resource is a resource of this cluster.
type Resource struct {
	Key
	Backend Backend
	// FirstByte is the longest wait for a response's first byte; zero takes the default of the type.
	FirstByte time.Duration
	// Endpoints that are ready, or draining. A resource without any keeps its route and answers 503.
	Endpoints []Endpoint
}

// Ready says whether the resource has an endpoint that takes new requests.
func (r Resource) Ready() bool {
	return slices.ContainsFunc(r.Endpoints, func(e Endpoint) bool { return !e.Draining })
}

// FirstByteTimeout is the longest wait for a response's first byte: the resource's own, else as KAOS has them.
func (r Resource) FirstByteTimeout() time.Duration {
	switch {
	case r.FirstByte > 0:
		return r.FirstByte
	case r.Type == "agent", r.Type == "modelapi":
		return 120 * time.Second
	default:
		return 30 * time.Second
	}
}

// check says what is wrong with a resource. Names go into paths and cluster names, so they must be what Kubernetes takes.
func (r Resource) check() error {
	for _, l := range []struct{ what, value string }{{"namespace", r.Namespace}, {"name", r.Name}, {"service namespace", r.Backend.Namespace}, {"service", r.Backend.Service}} {
		if errs := validation.IsDNS1123Label(l.value); len(errs) > 0 {
			return fmt.Errorf("resource %s: %s %q: %s", r.Path(), l.what, l.value, strings.Join(errs, "; "))
		}
	}
	switch r.Type {
	case "agent", "mcp", "modelapi", "service":
	default:
		return fmt.Errorf("resource %s: type %q: must be agent, mcp, modelapi or service", r.Path(), r.Type)
	}
	if r.Backend.Port == "" {
		return fmt.Errorf("resource %s: the backing service %s has no port", r.Path(), r.Backend.Service)
	}
	if r.FirstByte < 0 {
		return fmt.Errorf("resource %s: timeout %s: must not be negative", r.Path(), r.FirstByte)
	}
	return nil
}

// Sort orders resources by path, which makes tables comparable.
func Sort(rs []Resource) {
	slices.SortFunc(rs, func(a, b Resource) int { return compare(a.Key, b.Key) })
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
}

func (b Backend) compare(o Backend) int {
	return cmp.Or(cmp.Compare(b.Namespace, o.Namespace), cmp.Compare(b.Service, o.Service), cmp.Compare(b.Port, o.Port))
}
