package apply_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestLife follows a Gateway and a route from the hub into the cluster, back, through a change, and out.
func TestLife(t *testing.T) {
	w := newWorld(t, "life")
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"), route("gw-default", "gw", "/ns/agent/a"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"), route("shop-2", "gw", "/shop/agent/pay"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly("Gateway gw", "HTTPRoute gw-default", "HTTPRoute shop", "HTTPRoute shop-2")
	w.says("gw", v1alpha1.ReasonApplied)
	w.says("shop", v1alpha1.ReasonApplied)
	w.setCondition(w.onHub, v1alpha1.ProgramSetReady, v1alpha1.ReasonReady)
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)

	gw := &gatewayv1.Gateway{}
	w.get(w.g, gw, "gw")
	if gw.Spec.GatewayClassName != class || gw.Annotations["example.com/kept"] != "yes" || gw.Annotations["isthmus.dev/source"] != "Gateway/team/gw" || gw.Labels["isthmus.dev/program"] != "gw" {
		t.Errorf("%+v %+v", gw.ObjectMeta, gw.Spec)
	}
	t.Run("status comes back", func(t *testing.T) { testStatus(w, gw) })
	t.Run("a resync writes nothing", func(t *testing.T) {
		before := w.versions()
		w.stop()
		w.start(w.onHub)
		w.keeps("Gateway gw", "HTTPRoute gw-default", "HTTPRoute shop", "HTTPRoute shop-2")
		w.g.Expect(w.versions()).To(Equal(before))
	})
	t.Run("a change is an update in place; a part that is dropped goes", func(t *testing.T) {
		w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/basket"))
		w.hasOnly("Gateway gw", "HTTPRoute gw-default", "HTTPRoute shop")
		r := &gatewayv1.HTTPRoute{}
		w.get(w.g, r, "shop")
		w.g.Expect(r.Spec.Rules[0].Filters[0].RequestHeaderModifier.Set[0].Value).To(Equal("/shop/agent/basket"))
	})
	t.Run("programs that go", func(t *testing.T) {
		w.unprogram(w.onHub, "shop")
		w.keeps("Gateway gw", "HTTPRoute gw-default", "HTTPRoute shop") // the set still counts it
		w.count(w.onHub, "e1")
		w.hasOnly("Gateway gw", "HTTPRoute gw-default")
		w.unprogram(w.onHub, "gw")
		w.count(w.onHub, "e1")
		w.hasOnly()
	})
}

func (w *world) versions() map[string]string {
	out := map[string]string{}
	for _, list := range []client.ObjectList{&gatewayv1.GatewayList{}, &gatewayv1.HTTPRouteList{}, &corev1.SecretList{}} {
		if err := w.cluster.List(w.Context(), list, client.InNamespace(w.here)); err != nil {
			w.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			w.Fatal(err)
		}
		for _, o := range items {
			out[o.(client.Object).GetName()] = o.(client.Object).GetResourceVersion()
		}
	}
	return out
}

// testStatus plays the implementation.
func testStatus(w *world, gw *gatewayv1.Gateway) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	say := func(kind string, status metav1.ConditionStatus, reason string, generation int64) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "said by the implementation", ObservedGeneration: generation, LastTransitionTime: now}
	}
	gw.Status = gatewayv1.GatewayStatus{
		Conditions: []metav1.Condition{say("Accepted", "True", "Accepted", gw.Generation), say("Programmed", "True", "Programmed", gw.Generation-1), say("Applied", "True", "Forged", 1)},
		Addresses:  []gatewayv1.GatewayStatusAddress{{Type: ptr.To(gatewayv1.IPAddressType), Value: "192.0.2.1"}, {Type: ptr.To(gatewayv1.HostnameAddressType), Value: "lb.example.com"}},
		Listeners:  []gatewayv1.ListenerStatus{{Name: "web", AttachedRoutes: 3, SupportedKinds: []gatewayv1.RouteGroupKind{}, Conditions: []metav1.Condition{say("Conflicted", "False", "NoConflicts", gw.Generation)}}},
	}
	if err := w.cluster.Status().Update(w.Context(), gw, client.FieldOwner("impl")); err != nil {
		w.Fatal(err)
	}
	// Of a route's two parts, the one that complains is what the hub is to see.
	for name, status := range map[string]metav1.ConditionStatus{"shop": "True", "shop-2": "False"} {
		r := &gatewayv1.HTTPRoute{}
		w.get(w.g, r, name)
		r.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: r.Spec.ParentRefs[0], ControllerName: "example.com/impl", Conditions: []metav1.Condition{say("Accepted", status, "Some", r.Generation)}}}
		if err := w.cluster.Status().Update(w.Context(), r, client.FieldOwner("impl")); err != nil {
			w.Fatal(err)
		}
	}
	w.eventually(func(g Gomega) {
		p := &v1alpha1.GatewayProgram{}
		g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: w.onHub, Name: "gw"}, p)).To(Succeed())
		g.Expect(p.Status.AppliedGeneration).To(Equal(p.Generation))
		g.Expect(p.Status.Addresses).To(Equal([]v1alpha1.ProgramAddress{{Type: "IPAddress", Value: "192.0.2.1"}, {Type: "Hostname", Value: "lb.example.com"}}))
		accepted, programmed := meta.FindStatusCondition(p.Status.Conditions, "Accepted"), meta.FindStatusCondition(p.Status.Conditions, "Programmed")
		g.Expect(accepted).NotTo(BeNil())
		g.Expect(programmed).NotTo(BeNil())
		g.Expect(accepted.ObservedGeneration).To(Equal(p.Generation))
		g.Expect(programmed.ObservedGeneration).To(BeZero(), "said of an older Gateway")
		g.Expect(meta.FindStatusCondition(p.Status.Conditions, "Applied").Reason).To(Equal(v1alpha1.ReasonApplied), "an implementation's own Applied is not taken for ours")
		g.Expect(p.Status.Listeners).To(HaveLen(1))
		g.Expect(p.Status.Listeners[0].Conditions[0].Type).To(Equal("Conflicted"))
		g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: w.onHub, Name: "shop"}, p)).To(Succeed())
		g.Expect(p.Status.Parents).To(HaveLen(1))
		g.Expect(p.Status.Parents[0].SectionName).To(Equal("web"))
		g.Expect(p.Status.Parents[0].Conditions[0].Status).To(Equal(metav1.ConditionFalse))
	})
}

// TestBackend follows the router's endpoints into the Service that programmed routes name.
func TestBackend(t *testing.T) {
	w := newWorld(t, "backend")
	routers := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: w.opts.RouterNamespace, Name: "isthmus-router-abc", Labels: map[string]string{discoveryv1.LabelServiceName: "isthmus-router"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("edge"), Port: ptr.To[int32](8080)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.7"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
	}
	w.create(w.cluster, routers)
	w.create(w.cluster, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: w.opts.RouterNamespace, Name: "other", Labels: map[string]string{discoveryv1.LabelServiceName: "other"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.66"}}},
	})
	w.start(w.onHub)
	is := func(addresses map[string]bool) {
		t.Helper()
		w.eventually(func(g Gomega) {
			var list discoveryv1.EndpointSliceList
			g.Expect(w.cluster.List(t.Context(), &list, client.InNamespace(w.here), client.MatchingLabels{discoveryv1.LabelServiceName: v1alpha1.ProgramBackend})).To(Succeed())
			got := map[string]bool{}
			for _, s := range list.Items {
				ports := map[string]int32{}
				for _, p := range s.Ports {
					ports[*p.Name] = *p.Port
				}
				g.Expect(ports).To(Equal(map[string]int32{"gateway": 8081, "mirror": 8082}))
				for _, e := range s.Endpoints {
					got[e.Addresses[0]] = *e.Conditions.Ready
				}
			}
			g.Expect(list.Items).NotTo(BeEmpty())
			g.Expect(got).To(Equal(addresses))
		})
	}
	is(map[string]bool{"192.0.2.7": true})
	routers.Endpoints = append(routers.Endpoints, discoveryv1.Endpoint{Addresses: []string{"192.0.2.8"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true)}})
	if err := w.cluster.Update(t.Context(), routers); err != nil {
		t.Fatal(err)
	}
	is(map[string]bool{"192.0.2.7": true, "192.0.2.8": false})
	if err := w.cluster.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{}, client.InNamespace(w.here)); err != nil {
		t.Fatal(err)
	}
	is(map[string]bool{"192.0.2.7": true, "192.0.2.8": false})
	relabelled := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"`+discoveryv1.LabelServiceName+`":null}}}`))
	if err := w.cluster.Patch(t.Context(), &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: v1alpha1.ProgramBackend + "-ipv4"}}, relabelled); err != nil {
		t.Fatal(err)
	}
	is(map[string]bool{"192.0.2.7": true, "192.0.2.8": false})
	if err := w.cluster.Delete(t.Context(), routers); err != nil {
		t.Fatal(err)
	}
	is(map[string]bool{})
}
