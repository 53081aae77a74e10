package service

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
)

// Kinds of the Multicluster Services API.
func Kinds() []source.Kind {
	return []source.Kind{{
		Type: v1alpha1.TypeService, Group: "multicluster.x-k8s.io", Plural: "serviceexports",
		Versions: []string{"v1alpha1", "v1beta1"},
		Parse: func(u *unstructured.Unstructured) (source.Resource, bool, error) {
			return source.Resource{Service: u.GetName()}, true, nil
		},
		Complete: complete,
	}}
}

func complete(r source.Resource, s *source.Service) (source.Resource, error) {
	if s == nil {
		return r, fmt.Errorf("ServiceExport %s/%s: there is no Service of that name", r.Namespace, r.Service)
	}
	p, err := choose(s)
	if err != nil {
		return r, fmt.Errorf("ServiceExport %s/%s: %w", r.Namespace, r.Service, err)
	}
	r.Port, r.Protocols = p.Number, protocols(p)
	return r, nil
}

func choose(s *source.Service) (source.ServicePort, error) {
	if len(s.Ports) == 0 {
		return source.ServicePort{}, errors.New("the Service has no TCP port")
	}
	if s.Port != "" {
		i := slices.IndexFunc(s.Ports, func(p source.ServicePort) bool {
			return p.Name == s.Port || strconv.Itoa(int(p.Number)) == s.Port
		})
		if i < 0 {
			return source.ServicePort{}, fmt.Errorf("annotation %s: the Service has no TCP port %q", source.PortKey, s.Port)
		}
		return s.Ports[i], nil
	}
	if i := slices.IndexFunc(s.Ports, func(p source.ServicePort) bool { return p.Name == "http" }); i >= 0 {
		return s.Ports[i], nil
	}
	return s.Ports[0], nil
}

// protocols of a port: what appProtocol says, else the first part of the port's name, as Istio and others have it.
func protocols(p source.ServicePort) []v1alpha1.Protocol {
	hint := p.AppProtocol
	if hint == "" {
		hint, _, _ = strings.Cut(p.Name, "-")
	}
	switch strings.ToLower(strings.TrimPrefix(hint, "kubernetes.io/")) {
	case "grpc", "h2c":
		return []v1alpha1.Protocol{v1alpha1.ProtocolGRPC}
	}
	return []v1alpha1.Protocol{v1alpha1.ProtocolHTTP}
}
