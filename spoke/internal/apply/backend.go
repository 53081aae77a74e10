package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	applydiscoveryv1 "k8s.io/client-go/applyconfigurations/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

// The chart makes the Service isthmus-router in the applier's namespace without a selector: the pods are in another one.
// Its EndpointSlices are copies of those of the router's own Service, with the port of its gateway listener. So programmed
// routes need no ReferenceGrant, and every implementation that knows Services can serve them.

// maxEndpoints is how many one EndpointSlice takes.
const maxEndpoints = 1000

// backend is what is known of both Services' slices, by name.
type backend struct {
	routers, copies map[string]*discoveryv1.EndpointSlice
}

func (a *Applier) followRouters(ctx context.Context, wg *sync.WaitGroup) {
	for _, f := range []struct {
		namespace, service string
		of                 *map[string]*discoveryv1.EndpointSlice
	}{
		{a.opts.RouterNamespace, a.opts.RouterService, &a.backend.routers},
		{a.opts.Namespace, v1alpha1.ProgramBackend, &a.backend.copies},
	} {
		api := a.opts.Kubernetes.DiscoveryV1().EndpointSlices(f.namespace)
		m := mirror.Mirror[*discoveryv1.EndpointSlice]{
			Name:    "endpointslices of " + f.namespace,
			Source:  mirror.ListWatch(a.opts.Kubernetes, "", api.List, api.Watch),
			Example: &discoveryv1.EndpointSlice{},
			Convert: func(o runtime.Object) *discoveryv1.EndpointSlice { return o.(*discoveryv1.EndpointSlice).DeepCopy() },
			Sink:    sliceSink{a, f.service, f.of},
			Failed:  a.unreadable("EndpointSlice"),
		}
		wg.Go(func() { m.Run(ctx) })
	}
}

type sliceSink struct {
	*Applier
	service string
	of      *map[string]*discoveryv1.EndpointSlice
}

func (s sliceSink) change(f func(map[string]*discoveryv1.EndpointSlice)) {
	s.mu.Lock()
	if *s.of == nil {
		*s.of = map[string]*discoveryv1.EndpointSlice{}
	}
	f(*s.of)
	s.mu.Unlock()
	s.queue.Add(backendKey)
}

// Put takes a slice of the Service, and lets go of one that is so no more: its label may be changed.
func (s sliceSink) Put(n types.NamespacedName, v *discoveryv1.EndpointSlice) {
	if v.Labels[discoveryv1.LabelServiceName] != s.service {
		s.Delete(n)
		return
	}
	s.change(func(m map[string]*discoveryv1.EndpointSlice) { m[n.Name] = v })
}
func (s sliceSink) Delete(n types.NamespacedName) {
	s.mu.Lock()
	_, had := (*s.of)[n.Name]
	s.mu.Unlock()
	if had {
		s.change(func(m map[string]*discoveryv1.EndpointSlice) { delete(m, n.Name) })
	}
}

func (s sliceSink) Replace(all map[types.NamespacedName]*discoveryv1.EndpointSlice) {
	s.change(func(m map[string]*discoveryv1.EndpointSlice) {
		clear(m)
		for n, v := range all {
			if v.Labels[discoveryv1.LabelServiceName] == s.service {
				m[n.Name] = v
			}
		}
	})
}

// keepBackend writes the copies that are not as they should be. A family without routers has an empty copy: routes get 503
// from the implementation, not 500 for a Service that is no more.
func (a *Applier) keepBackend(ctx context.Context) error {
	a.mu.Lock()
	ready := a.backend.routers != nil && a.backend.copies != nil
	routers, copies := maps.Clone(a.backend.routers), maps.Clone(a.backend.copies)
	a.mu.Unlock()
	if !ready {
		return nil
	}
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		name := v1alpha1.ProgramBackend + "-" + strings.ToLower(string(family))
		endpoints := routerEndpoints(routers, family)
		have := copies[name]
		if have == nil && len(endpoints) == 0 && family == discoveryv1.AddressTypeIPv6 {
			continue
		}
		if have != nil && have.AddressType == family && equality.Semantic.DeepEqual(have.Endpoints, endpoints) && a.portsAre(have) {
			continue
		}
		if err := a.applySlice(ctx, name, family, endpoints); err != nil {
			return fmt.Errorf("EndpointSlice %s: %w", name, err)
		}
	}
	return nil
}

// ports are those of the Service, by their names there.
func (a *Applier) ports() map[string]int32 {
	return map[string]int32{"gateway": a.opts.GatewayPort, "mirror": a.opts.MirrorPort}
}

func (a *Applier) portsAre(s *discoveryv1.EndpointSlice) bool {
	have := map[string]int32{}
	for _, p := range s.Ports {
		have[ptr.Deref(p.Name, "")] = ptr.Deref(p.Port, 0)
	}
	return len(s.Ports) == len(have) && maps.Equal(have, a.ports())
}

// routerEndpoints are the routers of an address family, each once, in the order of their addresses.
func routerEndpoints(of map[string]*discoveryv1.EndpointSlice, family discoveryv1.AddressType) []discoveryv1.Endpoint {
	byAddress := map[string]discoveryv1.Endpoint{}
	for _, s := range of {
		if s.AddressType != family {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			byAddress[e.Addresses[0]] = discoveryv1.Endpoint{
				Addresses: e.Addresses[:1], NodeName: e.NodeName, Zone: e.Zone,
				Conditions: discoveryv1.EndpointConditions{
					Ready: ptr.To(ptr.Deref(e.Conditions.Ready, true)), Serving: ptr.To(ptr.Deref(e.Conditions.Serving, true)),
					Terminating: ptr.To(ptr.Deref(e.Conditions.Terminating, false)),
				},
			}
		}
	}
	out := make([]discoveryv1.Endpoint, 0, len(byAddress))
	for _, address := range slices.Sorted(maps.Keys(byAddress)) {
		out = append(out, byAddress[address])
	}
	return out[:min(len(out), maxEndpoints)]
}

func (a *Applier) applySlice(ctx context.Context, name string, family discoveryv1.AddressType, endpoints []discoveryv1.Endpoint) error {
	s := applydiscoveryv1.EndpointSlice(name, a.opts.Namespace).WithAddressType(family).
		WithLabels(map[string]string{discoveryv1.LabelServiceName: v1alpha1.ProgramBackend, discoveryv1.LabelManagedBy: FieldManager + ".isthmus.dev"})
	ports := a.ports()
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		s = s.WithPorts(applydiscoveryv1.EndpointPort().WithName(name).WithPort(ports[name]).WithProtocol(corev1.ProtocolTCP))
	}
	for _, e := range endpoints {
		c := applydiscoveryv1.EndpointConditions().WithReady(*e.Conditions.Ready).WithServing(*e.Conditions.Serving).WithTerminating(*e.Conditions.Terminating)
		out := applydiscoveryv1.Endpoint().WithAddresses(e.Addresses...).WithConditions(c)
		out.NodeName, out.Zone = e.NodeName, e.Zone
		s = s.WithEndpoints(out)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := a.opts.Kubernetes.DiscoveryV1().EndpointSlices(a.opts.Namespace).Apply(ctx, s, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	a.opts.Metrics.wrote("EndpointSlice", "apply", err)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backend.copies[name] = got
	return nil
}
