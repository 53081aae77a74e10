package hublink_test

import (
	"fmt"
	"log/slog"
	"testing"

	"context"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

func TestAddresses(t *testing.T) {
	ports := []corev1.ServicePort{{Name: "edge", Port: 80, NodePort: 30080}, {Name: "eastwest", Port: 15443, NodePort: 31443}}
	nodes := []hublink.Node{{Name: "b", Address: "10.0.0.2", Ready: true}, {Name: "a", Address: "10.0.0.1", Ready: true}, {Name: "c", Address: "10.0.0.3"}, {Name: "d", Ready: true}}
	many := make([]hublink.Node, 40)
	for i := range many {
		many[i] = hublink.Node{Name: fmt.Sprintf("n%02d", i), Address: fmt.Sprintf("10.0.1.%d", i), Ready: true}
	}
	lb := func(in ...corev1.LoadBalancerIngress) corev1.ServiceStatus {
		return corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: in}}
	}
	for name, c := range map[string]struct {
		service corev1.Service
		nodes   []hublink.Node
		want    []v1alpha1.RouterAddress
	}{
		"load balancer without an answer": {corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: ports}}, nodes, nil},
		"load balancer": {corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: ports},
			Status: lb(corev1.LoadBalancerIngress{IP: "203.0.113.1"}, corev1.LoadBalancerIngress{Hostname: "lb.example.com"}, corev1.LoadBalancerIngress{IP: "203.0.113.1"})},
			nil, []v1alpha1.RouterAddress{{Host: "203.0.113.1", Port: 15443}, {Host: "lb.example.com", Port: 15443}}},
		"node port, ready nodes with an address, by name": {corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: ports}}, nodes,
			[]v1alpha1.RouterAddress{{Host: "10.0.0.1", Port: 31443}, {Host: "10.0.0.2", Port: 31443}}},
		"node port, no node ready": {corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: ports}},
			[]hublink.Node{{Name: "c", Address: "10.0.0.3"}}, []v1alpha1.RouterAddress{{Host: "10.0.0.3", Port: 31443}}},
		"cluster IP": {corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1", Ports: ports}}, nodes, nil},
		"external IPs": {corev1.Service{Spec: corev1.ServiceSpec{ExternalIPs: []string{"198.51.100.7"}, Ports: ports}}, nodes,
			[]v1alpha1.RouterAddress{{Host: "198.51.100.7", Port: 15443}}},
		"port by number": {corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "tls", Port: 15443}}}, Status: lb(corev1.LoadBalancerIngress{IP: "203.0.113.1"})}, nil,
			[]v1alpha1.RouterAddress{{Host: "203.0.113.1", Port: 15443}}},
		"no such port": {corev1.Service{Spec: corev1.ServiceSpec{Ports: ports[:1]}, Status: lb(corev1.LoadBalancerIngress{IP: "203.0.113.1"})}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, hublink.Addresses(&c.service, c.nodes)); d != "" {
				t.Error(d)
			}
		})
	}
	if got := hublink.Addresses(&corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: ports}}, many); len(got) != 16 {
		t.Errorf("%d addresses of 40 nodes, want 16", len(got))
	}
}

func TestParseAddress(t *testing.T) {
	for _, bad := range []string{"", "host", ":1", "host:0", "host:65536", "host:x", "::1:80"} {
		if a, err := hublink.ParseAddress(bad); err == nil {
			t.Errorf("%q gives %+v", bad, a)
		}
	}
	if a, err := hublink.ParseAddress("[2001:db8::1]:443"); err != nil || a != (v1alpha1.RouterAddress{Host: "2001:db8::1", Port: 443}) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestRoutersFollowServiceAndNodes(t *testing.T) {
	l := newLink(t, "routers")
	changed := make(chan struct{}, 100)
	r := &hublink.Routers{Kubernetes: l.kube, Namespace: l.ns, Service: "isthmus-router", Changed: func() { changed <- struct{}{} },
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: l.metrics}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	// Nothing is reported before the Service was looked for.
	l.g.Eventually(func() bool { _, known := r.Addresses(); return known }).WithTimeout(deadline).Should(BeTrue())
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "routers-node"}, Status: corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "198.51.100.1"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	if _, err := l.kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	services := l.kube.CoreV1().Services(l.ns)
	s, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-router"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Name: "eastwest", Port: 15443, NodePort: 31543}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addresses := func() []v1alpha1.RouterAddress {
		a, known := r.Addresses()
		if !known {
			return []v1alpha1.RouterAddress{{Host: "not known yet"}}
		}
		return a
	}
	eventually := func(want ...v1alpha1.RouterAddress) {
		t.Helper()
		l.g.Eventually(addresses).WithTimeout(deadline).Should(Equal(want))
	}
	eventually(v1alpha1.RouterAddress{Host: "198.51.100.1", Port: 31543})
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	if s, err = services.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.g.Eventually(addresses).WithTimeout(deadline).Should(BeEmpty())
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}}
	if _, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(v1alpha1.RouterAddress{Host: "203.0.113.9", Port: 15443})
	if err := services.Delete(t.Context(), "isthmus-router", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	l.g.Eventually(addresses).WithTimeout(deadline).Should(BeEmpty())
	if len(changed) < 4 {
		t.Errorf("told of %d changes", len(changed))
	}
}
