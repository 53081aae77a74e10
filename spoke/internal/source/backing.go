package source

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// PortKey is an annotation on a Service: the name or number of the port that is exported, where there are several.
const PortKey = "isthmus.dev/port"

// Service is what is kept of a Service.
type Service struct {
	// Ports that speak TCP, in the Service's order.
	Ports []ServicePort
	// Port is the annotation PortKey.
	Port string
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name        string
	Number      int32
	AppProtocol string
}

func readService(s *corev1.Service) *Service {
	out := &Service{Port: s.Annotations[PortKey]}
	for _, p := range s.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		sp := ServicePort{Name: p.Name, Number: p.Port}
		if p.AppProtocol != nil {
			sp.AppProtocol = *p.AppProtocol
		}
		out.Ports = append(out.Ports, sp)
	}
	return out
}

func (s *Service) equal(o *Service) bool { return s.Port == o.Port && slices.Equal(s.Ports, o.Ports) }

// portName finds the name under which EndpointSlices list a port of the Service.
func (s *Service) portName(number int32) (string, bool) {
	for _, p := range s.Ports {
		if p.Number == number {
			return p.Name, true
		}
	}
	return "", false
}

// endpointSlice is what is kept of an EndpointSlice.
type endpointSlice struct {
	service string
	ports   []slicePort
	hosts   []host
}

type slicePort struct {
	name   string
	number uint16
}

type host struct {
	addr           netip.Addr
	ready, serving bool
}

func readSlice(s *discoveryv1.EndpointSlice) *endpointSlice {
	out := &endpointSlice{service: s.Labels[discoveryv1.LabelServiceName]}
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return out
	}
	for _, p := range s.Ports {
		if p.Port == nil || *p.Port < 1 || *p.Port > 65535 || (p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP) {
			continue
		}
		sp := slicePort{number: uint16(*p.Port)}
		if p.Name != nil {
			sp.name = *p.Name
		}
		out.ports = append(out.ports, sp)
	}
	for _, e := range s.Endpoints {
		if h, ok := readHost(e); ok {
			out.hosts = append(out.hosts, h)
		}
	}
	return out
}

// readHost reads the first address only: the API says that the others are the same endpoint. Conditions that are not set
// mean ready, and serving as ready says.
func readHost(e discoveryv1.Endpoint) (host, bool) {
	if len(e.Addresses) == 0 {
		return host{}, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return host{}, false
	}
	c := e.Conditions
	ready := c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	return host{addr.Unmap(), ready, serving}, true
}

func (s *endpointSlice) equal(o *endpointSlice) bool {
	return s.service == o.service && slices.Equal(s.ports, o.ports) && slices.Equal(s.hosts, o.hosts)
}

// endpoints of the port that match accepts.
func (s *endpointSlice) endpoints(match func(slicePort) bool) []Endpoint {
	var out []Endpoint
	for _, p := range s.ports {
		if !match(p) {
			continue
		}
		for _, h := range s.hosts {
			if h.ready || h.serving {
				out = append(out, Endpoint{netip.AddrPortFrom(h.addr, p.number), h.ready, h.serving})
			}
		}
	}
	return out
}
