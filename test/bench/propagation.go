package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// propagation of one change: from the return of the EndpointSlice's create call.
type propagation struct {
	write durations // the create call itself
	slice durations // until a watch on the hub sees the entry Ready
	route durations // until the other cluster's edge answers 200
}

// propagate makes n agents, one after the other, ready in the one cluster and asks for each at the other's edge.
func (b *bench) propagate(ctx context.Context, n int) (propagation, error) {
	var p propagation
	watcher, err := b.fleet.hub.Watch(ctx, &v1alpha1.AgentSliceList{}, client.InNamespace("isthmus-spoke-"+b.fleet.from.Name))
	if err != nil {
		return p, err
	}
	defer watcher.Stop()
	ready := make(chan string, 4*n)
	go func() {
		for e := range watcher.ResultChan() {
			if s, ok := e.Object.(*v1alpha1.AgentSlice); ok {
				for _, r := range s.Spec.Resources {
					if r.Readiness == v1alpha1.Ready {
						select {
						case ready <- r.Name:
						default:
						}
					}
				}
			}
		}
	}()
	for i := range n {
		if err := b.propagateOne(ctx, fmt.Sprintf("p%d-%d", b.run, i), ready, &p); err != nil {
			return p, err
		}
	}
	b.run++
	return p, nil
}

func (b *bench) propagateOne(ctx context.Context, name string, ready <-chan string, p *propagation) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	from := b.fleet.from.client
	agent := newAgent(benchNamespace, name)
	service := b.service("agent-" + name)
	for _, o := range []client.Object{agent, service} {
		if err := from.Create(ctx, o); err != nil {
			return err
		}
	}
	url := b.fleet.at.Edge + "/" + benchNamespace + "/agent/" + name + "/health"
	if err := pollStatus(ctx, b.http, url, http.StatusServiceUnavailable); err != nil {
		return fmt.Errorf("%s declared: %w", name, err)
	}
	eps := b.endpoints("agent-" + name)
	start := time.Now()
	if err := from.Create(ctx, eps); err != nil {
		return err
	}
	written := time.Now()
	p.write = append(p.write, written.Sub(start))
	sliced := make(chan time.Duration, 1)
	go func() {
		for {
			select {
			case n := <-ready:
				if n == name {
					sliced <- time.Since(written)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := pollStatus(ctx, b.http, url, http.StatusOK); err != nil {
		return fmt.Errorf("%s ready: %w", name, err)
	}
	p.route = append(p.route, time.Since(written))
	select {
	case d := <-sliced:
		p.slice = append(p.slice, d)
	case <-ctx.Done():
		return fmt.Errorf("%s: no slice seen: %w", name, ctx.Err())
	}
	for _, o := range []client.Object{agent, service, eps} {
		if err := from.Delete(ctx, o); err != nil {
			return err
		}
	}
	return pollStatus(ctx, b.http, url, http.StatusNotFound)
}

// pollStatus asks every millisecond on a kept-alive connection.
func pollStatus(ctx context.Context, hc *http.Client, url string, want int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		code, err := status(ctx, hc, url)
		if err == nil && code == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %d, want %d: %w", url, code, want, ctx.Err())
		case <-tick.C:
		}
	}
}

func status(ctx context.Context, hc *http.Client, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, err
}

func newAgent(ns, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"modelAPI": "model", "model": "m"}}}
	u.SetAPIVersion("kaos.tools/v1alpha1")
	u.SetKind("Agent")
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

func (b *bench) service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Name: "http", Port: 8000}}},
	}
}

func (b *bench) endpoints(service string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: benchNamespace, Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8000)), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{b.podIP}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
	}
}
