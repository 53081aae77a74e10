package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// balancer gives LoadBalancer Services an address and routes it to their ready pods: the kernel spreads connections over
// them and every pod answers on the address itself. There is no translation of ports: port and targetPort are equal.
type balancer struct {
	k        *Kubelet
	pool     *plan.Pool
	addrs    map[string]netip.Addr          // by namespace/name
	routed   map[string][]netip.Addr        // pods, by namespace/name
	local    map[string]map[*netlab.NS]bool // pods that answer on the address
	reported map[string]string
}

func newBalancer(k *Kubelet) *balancer {
	return &balancer{k: k, pool: k.Cluster.Balancers(), addrs: map[string]netip.Addr{}, routed: map[string][]netip.Addr{},
		local: map[string]map[*netlab.NS]bool{}, reported: map[string]string{}}
}

func (b *balancer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.k.wake:
		}
		seen := map[string]bool{}
		for _, obj := range b.k.services.List() {
			svc := obj.(*corev1.Service)
			key := svc.Namespace + "/" + svc.Name
			seen[key] = true
			if err := b.one(ctx, key, svc); err != nil {
				b.warn(key, svc, err.Error())
			}
		}
		for key, addr := range b.addrs {
			if !seen[key] {
				b.drop(key, addr)
			}
		}
	}
}

func (b *balancer) one(ctx context.Context, key string, svc *corev1.Service) error {
	addr, err := b.address(key)
	if err != nil {
		return err
	}
	targets := b.targets(svc)
	var pods []netip.Addr
	local := map[*netlab.NS]bool{}
	for _, w := range targets {
		pods = append(pods, w.ip)
		local[w.net] = true
		if !b.local[key][w.net] {
			if err := w.net.AddLocal(addr); err != nil {
				return fmt.Errorf("address %s in pod %s: %w", addr, w.pod.Name, err)
			}
		}
	}
	slices.SortFunc(pods, netip.Addr.Compare)
	if old, ok := b.routed[key]; !ok || !slices.Equal(old, pods) {
		if err := b.k.Node.Balance(addr, pods); err != nil {
			return err
		}
		b.routed[key] = pods
	}
	b.local[key] = local // a pod that is not ready keeps the address: its open connections live on
	if problem := portProblem(svc, targets); problem != "" {
		b.warn(key, svc, problem)
	}
	return b.publish(ctx, svc, addr)
}

func (b *balancer) address(key string) (netip.Addr, error) {
	if a, ok := b.addrs[key]; ok {
		return a, nil
	}
	a, ok := b.reserved(key)
	if !ok {
		var err error
		if a, err = b.pool.Take(); err != nil {
			return a, err
		}
	}
	b.addrs[key] = a
	return a, nil
}

// reserved is the address kept for a Service, if there is one and nobody has it.
func (b *balancer) reserved(key string) (netip.Addr, bool) {
	if a, ok := b.k.Reserved[key]; ok {
		return a, true
	}
	namespace, _, _ := strings.Cut(key, "/")
	a, ok := b.k.ReservedFirst[namespace]
	for _, taken := range b.addrs {
		ok = ok && taken != a
	}
	return a, ok
}

// targets are the ready pods of a Service or, when there are none, those that end but still serve.
func (b *balancer) targets(svc *corev1.Service) []*worker {
	if len(svc.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	var ready, ending []*worker
	for _, w := range b.k.all() {
		if w.pod.Namespace != svc.Namespace || !selector.Matches(labels.Set(w.pod.Labels)) || !w.ready() {
			continue
		}
		select {
		case <-w.stopping:
			ending = append(ending, w)
		default:
			ready = append(ready, w)
		}
	}
	if len(ready) == 0 {
		return ending
	}
	return ready
}

func portProblem(svc *corev1.Service, targets []*worker) string {
	for _, p := range svc.Spec.Ports {
		for _, w := range targets {
			for i := range w.pod.Spec.Containers {
				target, err := portOf(&w.pod.Spec.Containers[i], p.TargetPort)
				if err == nil && target != 0 && target != int(p.Port) {
					return fmt.Sprintf("port %d has targetPort %d: the lab's load balancer does not translate ports, set both to the same number", p.Port, target)
				}
			}
		}
	}
	return ""
}

func (b *balancer) warn(key string, svc *corev1.Service, text string) {
	if b.reported[key] != text {
		b.reported[key] = text
		b.k.recorder.Event(svc, corev1.EventTypeWarning, "LabLoadBalancer", text)
		b.k.Log.Warn("load balancer", "service", key, "problem", text)
	}
}

func (b *balancer) publish(ctx context.Context, svc *corev1.Service, addr netip.Addr) error {
	if in := svc.Status.LoadBalancer.Ingress; len(in) == 1 && in[0].IP == addr.String() {
		return nil
	}
	status := corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: addr.String()}}}}
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = b.k.Client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

func (b *balancer) drop(key string, addr netip.Addr) {
	b.k.Node.Unbalance(addr)
	for ns := range b.local[key] {
		ns.DropLocal(addr)
	}
	b.pool.Release(addr) // of a reserved one it knows nothing
	delete(b.addrs, key)
	delete(b.routed, key)
	delete(b.local, key)
	delete(b.reported, key)
}
