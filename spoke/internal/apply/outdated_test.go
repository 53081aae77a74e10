package apply_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// TestOldDefinitions has a cluster with an earlier form of the Gateway API, which is then upgraded. Its HTTPRoute has no timeouts, as before
// version 1.2, and its GRPCRoute is v1alpha2 alone, as before 1.1.
func TestOldDefinitions(t *testing.T) {
	cfg := kubetest.For(t)
	w := newWorldIn(t, "old", cfg)
	clock := clocktesting.NewFakeClock(time.Now())
	w.opts.Clock = clock
	d := definitions{w, clientset.NewForConfigOrDie(cfg)}
	d.put("gatewayclasses", nil)
	d.put("gateways", nil)
	d.put("httproutes", dropTimeouts)
	d.put("grpcroutes", func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Spec.Versions[0].Name = "v1alpha2" })
	w.create(w.cluster, &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/impl"}})

	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "plain", "e1", nil, route("plain", "gw", "/shop/agent/cart"))
	w.program(w.onHub, "timed", "e1", nil, timed(route("timed", "gw", "/shop/agent/cart")))
	w.program(w.onHub, "grpc", "e1", nil, grpcRoute("grpc", "gw"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)

	w.says("gw", v1alpha1.ReasonApplied)
	w.says("plain", v1alpha1.ReasonApplied)
	w.g.Expect(w.says("timed", v1alpha1.ReasonGatewayAPIOutdated)).To(And(ContainSubstring("timeouts"), ContainSubstring("upgrade")))
	w.g.Expect(w.says("grpc", v1alpha1.ReasonGatewayAPIMissing)).To(And(ContainSubstring("grpcroutes.gateway.networking.k8s.io/v1"), ContainSubstring("install")))

	// What was in force stays as it was: half of a rule is worse than an old one.
	w.program(w.onHub, "plain", "e1", nil, timed(route("plain", "gw", "/shop/agent/other")))
	w.says("plain", v1alpha1.ReasonGatewayAPIOutdated)
	w.g.Expect(target(w, "plain")).To(Equal("/shop/agent/cart"))

	d.put("httproutes", nil)
	d.put("grpcroutes", func(crd *apiextensionsv1.CustomResourceDefinition) {
		old := *crd.Spec.Versions[0].DeepCopy()
		old.Name, old.Storage = "v1alpha2", false
		crd.Spec.Versions = append(crd.Spec.Versions, old)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go step(ctx, clock)
	for _, name := range []string{"gw", "plain", "timed", "grpc"} {
		w.says(name, v1alpha1.ReasonApplied)
	}
	w.g.Expect(target(w, "plain")).To(Equal("/shop/agent/other"))
	for _, name := range []string{"plain", "timed"} {
		got := &gatewayv1.HTTPRoute{}
		w.get(w.g, got, name)
		w.g.Expect(got.Spec.Rules[0].Timeouts).To(Equal(&gatewayv1.HTTPRouteTimeouts{Request: ptr.To(gatewayv1.Duration("0s"))}))
	}
	w.hasOnly("Gateway gw", "HTTPRoute plain", "HTTPRoute timed", "GRPCRoute grpc")
}

// step lets a clock run fast.
func step(ctx context.Context, clock *clocktesting.FakeClock) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			clock.Step(time.Second)
		}
	}
}

// definitions writes those of the Gateway API, changed.
type definitions struct {
	*world
	api *clientset.Clientset
}

func (d definitions) put(plural string, change func(*apiextensionsv1.CustomResourceDefinition)) {
	d.Helper()
	raw, err := os.ReadFile(filepath.Join(kubetest.GatewayCRDs(), "gateway.networking.k8s.io_"+plural+".yaml"))
	if err != nil {
		d.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(raw, crd); err != nil {
		d.Fatal(err)
	}
	if change != nil {
		change(crd)
	}
	crds := d.api.ApiextensionsV1().CustomResourceDefinitions()
	d.eventually(func(g Gomega) {
		old, err := crds.Get(d.Context(), crd.Name, metav1.GetOptions{})
		if err != nil {
			_, err = crds.Create(d.Context(), crd, metav1.CreateOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			return
		}
		crd.ResourceVersion = old.ResourceVersion
		_, err = crds.Update(d.Context(), crd, metav1.UpdateOptions{})
		g.Expect(err).NotTo(HaveOccurred())
	})
	d.eventually(func(g Gomega) {
		now, err := crds.Get(d.Context(), crd.Name, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		established := false
		for _, c := range now.Status.Conditions {
			established = established || (c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue)
		}
		g.Expect(established).To(BeTrue())
	})
}

// dropTimeouts takes the field out of the rules.
func dropTimeouts(crd *apiextensionsv1.CustomResourceDefinition) {
	for i := range crd.Spec.Versions {
		spec := crd.Spec.Versions[i].Schema.OpenAPIV3Schema.Properties["spec"]
		delete(spec.Properties["rules"].Items.Schema.Properties, "timeouts")
	}
}

func timed(r *gatewayv1.HTTPRoute) *gatewayv1.HTTPRoute {
	r.Spec.Rules[0].Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: ptr.To(gatewayv1.Duration("0s"))}
	return r
}

func grpcRoute(name, parent string) *gatewayv1.GRPCRoute {
	like := route(name, parent, "")
	return &gatewayv1.GRPCRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: "gateway.networking.k8s.io/v1", Kind: "GRPCRoute"},
		ObjectMeta: like.ObjectMeta,
		Spec: gatewayv1.GRPCRouteSpec{CommonRouteSpec: like.Spec.CommonRouteSpec, Rules: []gatewayv1.GRPCRouteRule{{
			BackendRefs: []gatewayv1.GRPCBackendRef{{BackendRef: like.Spec.Rules[0].BackendRefs[0].BackendRef}},
		}}},
	}
}

// target is where a route in the cluster leads.
func target(w *world, name string) string {
	w.Helper()
	got := &gatewayv1.HTTPRoute{}
	w.get(w.g, got, name)
	return got.Spec.Rules[0].Filters[0].RequestHeaderModifier.Set[0].Value
}
