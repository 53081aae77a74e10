package service_test

import (
	"slices"
	"testing"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/service"
)

func TestComplete(t *testing.T) {
	port := func(name string, n int32, app string) source.ServicePort {
		return source.ServicePort{Name: name, Number: n, AppProtocol: app}
	}
	for name, c := range map[string]struct {
		service *source.Service
		port    int32 // 0: refused
		want    v1alpha1.Protocol
	}{
		"no Service":               {nil, 0, ""},
		"no TCP port":              {&source.Service{}, 0, ""},
		"the only one":             {&source.Service{Ports: []source.ServicePort{port("", 80, "")}}, 80, v1alpha1.ProtocolHTTP},
		"the one named http":       {&source.Service{Ports: []source.ServicePort{port("admin", 1, ""), port("http", 80, "")}}, 80, v1alpha1.ProtocolHTTP},
		"the first":                {&source.Service{Ports: []source.ServicePort{port("a", 1, ""), port("b", 2, "")}}, 1, v1alpha1.ProtocolHTTP},
		"annotated by name":        {&source.Service{Port: "b", Ports: []source.ServicePort{port("http", 1, ""), port("b", 2, "")}}, 2, v1alpha1.ProtocolHTTP},
		"annotated by number":      {&source.Service{Port: "2", Ports: []source.ServicePort{port("http", 1, ""), port("b", 2, "")}}, 2, v1alpha1.ProtocolHTTP},
		"annotated, but not there": {&source.Service{Port: "c", Ports: []source.ServicePort{port("http", 1, "")}}, 0, ""},
		"gRPC by the port's name":  {&source.Service{Ports: []source.ServicePort{port("grpc-api", 1, "")}}, 1, v1alpha1.ProtocolGRPC},
		"gRPC by appProtocol":      {&source.Service{Ports: []source.ServicePort{port("http", 1, "kubernetes.io/h2c")}}, 1, v1alpha1.ProtocolGRPC},
		"appProtocol before name":  {&source.Service{Ports: []source.ServicePort{port("grpc", 1, "http")}}, 1, v1alpha1.ProtocolHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := service.Kinds()[0].Complete(source.Resource{Namespace: "n", Service: "s"}, c.service)
			if c.port == 0 {
				if err == nil {
					t.Errorf("accepted as %+v", r)
				}
				return
			}
			if err != nil || r.Port != c.port || !slices.Equal(r.Protocols, []v1alpha1.Protocol{c.want}) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
