package apply_test

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestClaims has an implementation that takes a route and lacks what it asks for: the hub is told, until the class claims it.
func TestClaims(t *testing.T) {
	w := newWorld(t, "claims")
	c := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "claims"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/impl"}}
	w.create(w.cluster, c)
	t.Cleanup(func() {
		if err := w.cluster.Delete(context.WithoutCancel(t.Context()), c); err != nil {
			t.Error(err)
		}
	})
	claim := func(features ...gatewayv1.FeatureName) {
		t.Helper()
		c.Status = gatewayv1.GatewayClassStatus{Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: metav1.Now()}}}
		for _, f := range features {
			c.Status.SupportedFeatures = append(c.Status.SupportedFeatures, gatewayv1.SupportedFeature{Name: f})
		}
		if err := w.cluster.Status().Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	claim("HTTPRoute", "HTTPRoutePathRewrite")
	w.opts.ClassName = c.Name
	plain, cors := route("plain", "gw", "/shop/agent/cart"), route("cors", "gw", "/shop/agent/cart")
	cors.Spec.Rules[0].Filters = append(cors.Spec.Rules[0].Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterCORS,
		CORS: &gatewayv1.HTTPCORSFilter{AllowOrigins: []gatewayv1.CORSOrigin{"https://example.com"}}})
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "plain", "e1", nil, plain)
	w.program(w.onHub, "cors", "e1", nil, cors)
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly("Gateway gw", "HTTPRoute plain", "HTTPRoute cors")
	for _, name := range []string{"plain", "cors"} {
		r := &gatewayv1.HTTPRoute{}
		w.get(w.g, r, name)
		r.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: r.Spec.ParentRefs[0], ControllerName: "example.com/impl", Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: metav1.Now()},
		}}}
		if err := w.cluster.Status().Update(t.Context(), r, client.FieldOwner("impl")); err != nil {
			t.Fatal(err)
		}
	}
	said := func(name string, status metav1.ConditionStatus, reason, message string) {
		t.Helper()
		w.eventually(func(g Gomega) {
			p := &v1alpha1.GatewayProgram{}
			g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: w.onHub, Name: name}, p)).To(Succeed())
			g.Expect(p.Status.Parents).To(HaveLen(1))
			c := meta.FindStatusCondition(p.Status.Parents[0].Conditions, "Accepted")
			g.Expect(c).NotTo(BeNil())
			g.Expect(c.Status).To(Equal(status))
			g.Expect(c.Reason).To(Equal(reason))
			g.Expect(c.Message).To(ContainSubstring(message))
		})
	}
	said("cors", "False", "UnsupportedValue", `GatewayClass "claims" does not claim HTTPRouteCORS`)
	said("plain", "True", "Accepted", "")
	// An upgrade of the implementation.
	claim("HTTPRoute", "HTTPRouteCORS")
	said("cors", "True", "Accepted", "")
	claim("HTTPRoute")
	said("cors", "False", "UnsupportedValue", "HTTPRouteCORS")
	// One that says nothing of what it can do is believed.
	claim()
	said("cors", "True", "Accepted", "")
}
