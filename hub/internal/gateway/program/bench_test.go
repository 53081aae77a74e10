package program

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// many is a hub with n routes, one host each, at one Gateway of three clusters that have applied everything.
func many(n int) Input {
	in := Input{
		Epoch: "e1", Namespaces: map[string]map[string]string{"shop": {}},
		Declared:    func(Target) bool { return true },
		Certificate: func(types.NamespacedName) Certificate { return Certificate{Problem: "none"} },
		Issued:      func(string) (Certificate, bool) { return Certificate{}, false },
		Classes:     []*gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "isthmus"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: ControllerName}}},
		Gateways: []*gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "gw"}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "isthmus", Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}},
		}}},
	}
	for i := range 3 {
		in.Spokes = append(in.Spokes, Spoke{Name: fmt.Sprint("s", i), Held: map[string]Held{}})
	}
	for i := range n {
		in.HTTPRoutes = append(in.HTTPRoutes, &gatewayv1.HTTPRoute{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("r", i), UID: types.UID(fmt.Sprint(i)), Generation: 1},
			Spec: gatewayv1.HTTPRouteSpec{
				CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "gw"}}},
				Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(fmt.Sprintf("h%d.example.com", i))},
				Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
					Group: ptr.To(gatewayv1.Group("kaos.tools")), Kind: ptr.To(gatewayv1.Kind("Agent")), Name: "cart"}}}}}},
			},
		})
	}
	return in
}

// BenchmarkCompile is what a pass of the hub computes with 1,000 routes.
func BenchmarkCompile(b *testing.B) {
	in := many(1000)
	in.Hashes = &Hashes{}
	b.ReportAllocs()
	for b.Loop() {
		if out := Compile(in); len(out.Spokes["s0"]) != 1001 {
			b.Fatal(len(out.Spokes["s0"]))
		}
	}
}

// What is remembered must not change what comes out.
func TestHashesAreThoseOfTheSpec(t *testing.T) {
	in := many(10)
	in.Hashes = &Hashes{}
	for range 3 {
		for name, p := range Compile(in).Spokes["s1"] {
			if p.Hash != Hash(&p.Spec) || p.Hash == "" {
				t.Errorf("%s: hash %q, want %q", name, p.Hash, Hash(&p.Spec))
			}
		}
		in.HTTPRoutes[3].Generation++
	}
}
