package spoke

import (
	"context"
	"fmt"
	"net"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// routers finds the other routers of this cluster. They are asked for when they are needed: a router that starts with nothing.
type routers struct {
	client             kubernetes.Interface
	namespace, service string
	port               int    // 0: siblings are not used
	self               string // this pod
}

// address is where this router serves its siblings; empty: nowhere.
func (r routers) address(bind string) string {
	if r.port == 0 {
		return ""
	}
	return net.JoinHostPort(bind, strconv.Itoa(r.port))
}

func (r routers) others() func(context.Context) ([]string, error) {
	if r.port == 0 {
		return nil
	}
	return r.list
}

// list reads the Service's EndpointSlices. Routers that are not ready count: one may hold a view and wait for its Envoy.
func (r routers) list(ctx context.Context) ([]string, error) {
	all, err := r.client.DiscoveryV1().EndpointSlices(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + r.service})
	if err != nil {
		return nil, fmt.Errorf("EndpointSlices of Service %s/%s: %w", r.namespace, r.service, err)
	}
	var out []string
	seen := map[string]bool{}
	for _, s := range all.Items {
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.TargetRef.Name == r.self || len(e.Addresses) == 0 || seen[e.Addresses[0]] {
				continue
			}
			seen[e.Addresses[0]] = true
			out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(r.port)))
		}
	}
	return out, nil
}
