package apply_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// TestDefinitionsComeLater starts in a cluster without the Gateway API, which then gets it, and classes one by one.
func TestDefinitionsComeLater(t *testing.T) {
	cfg := kubetest.For(t)
	w := newWorldIn(t, "missing", cfg)
	w.opts.ClassName = ""
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.g.Expect(w.says("gw", v1alpha1.ReasonGatewayAPIMissing)).To(ContainSubstring("gateways.gateway.networking.k8s.io"))
	w.g.Expect(w.says("shop", v1alpha1.ReasonGatewayAPIMissing)).To(ContainSubstring("httproutes.gateway.networking.k8s.io"))
	w.setCondition(w.onHub, v1alpha1.ProgramSetReady, v1alpha1.ReasonGatewayAPIMissing)

	options := envtest.CRDInstallOptions{Paths: []string{kubetest.GatewayCRDs()}}
	installed, err := envtest.InstallCRDs(cfg, options)
	if err != nil {
		t.Fatal(err)
	}
	w.says("shop", v1alpha1.ReasonApplied)
	w.says("gw", v1alpha1.ReasonNoGatewayClass)

	accept := func(name, controller string) {
		t.Helper()
		c := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(controller)}}
		w.create(w.cluster, c)
		meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: "Accepted", Status: "True", Reason: "Accepted"})
		if err := w.cluster.Status().Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	accept("isthmus", "isthmus.dev/gateway-controller") // the hub may live here: its class serves nothing
	w.says("gw", v1alpha1.ReasonNoGatewayClass)
	accept("one", "example.com/one")
	w.says("gw", v1alpha1.ReasonApplied)
	w.g.Expect(w.setCondition(w.onHub, v1alpha1.ProgramSetReady, v1alpha1.ReasonReady)).To(ContainSubstring(`"one"`))

	accept("two", "example.com/two")
	w.g.Expect(w.setCondition(w.onHub, v1alpha1.ProgramSetReady, v1alpha1.ReasonSeveralGatewayClasses)).To(ContainSubstring("one, two"))
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.org"))
	w.says("gw", v1alpha1.ReasonApplied) // a Gateway that is there keeps its class
	w.program(w.onHub, "new", "e1", nil, gateway("new", "*.example.net"))
	w.g.Expect(w.says("new", v1alpha1.ReasonSeveralGatewayClasses)).To(ContainSubstring("one, two"))

	t.Run("the Spoke names one", func(t *testing.T) {
		set := &v1alpha1.GatewayProgramSet{ObjectMeta: metav1.ObjectMeta{Namespace: w.onHub, Name: v1alpha1.ProgramSetName}}
		w.eventually(func(g Gomega) {
			g.Expect(w.hub.Get(t.Context(), client.ObjectKeyFromObject(set), set)).To(Succeed())
			set.Spec.ClassName = "two"
			g.Expect(w.hub.Update(t.Context(), set)).To(Succeed())
		})
		for _, name := range []string{"gw", "new"} {
			w.says(name, v1alpha1.ReasonApplied)
			w.eventually(func(g Gomega) {
				gw := &gatewayv1.Gateway{}
				w.get(g, gw, name)
				g.Expect(gw.Spec.GatewayClassName).To(Equal(gatewayv1.ObjectName("two")))
			})
		}
	})
	t.Run("the definitions go and come again", func(t *testing.T) {
		used := followed(installed)
		if len(used) < 4 {
			t.Fatalf("%d definitions", len(used))
		}
		if err := envtest.UninstallCRDs(cfg, envtest.CRDInstallOptions{CRDs: used}); err != nil {
			t.Fatal(err)
		}
		w.says("gw", v1alpha1.ReasonGatewayAPIMissing)
		gone(w, used)
		if _, err := envtest.InstallCRDs(cfg, options); err != nil {
			t.Fatal(err)
		}
		accept("two", "example.com/two")
		w.says("gw", v1alpha1.ReasonApplied)
		w.eventually(func(g Gomega) { w.get(g, &gatewayv1.Gateway{}, "gw"); w.get(g, &gatewayv1.HTTPRoute{}, "shop") })
	})
}

// followed are the definitions of what the applier reads and writes. The others stay: when a definition is deleted of which nobody has read
// anything yet, the API server first makes a storage for it, to look for objects, and on a busy machine that may never be ready ("storage
// is (re)initializing"), so that the definition stays for good.
func followed(all []*apiextensionsv1.CustomResourceDefinition) []*apiextensionsv1.CustomResourceDefinition {
	return slices.DeleteFunc(slices.Clone(all), func(d *apiextensionsv1.CustomResourceDefinition) bool {
		return !slices.Contains([]string{"Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute"}, d.Spec.Names.Kind)
	})
}

// gone waits until none of these definitions is left, not even as one that is being deleted: it cannot be made again before.
// An object that the applier made again while the API server's admission had not yet heard of the deletion holds it up for a
// minute, the API server's own time-out, and is then deleted, too.
func gone(w *world, those []*apiextensionsv1.CustomResourceDefinition) {
	w.Helper()
	definitions, err := clientset.NewForConfig(w.config)
	if err != nil {
		w.Fatal(err)
	}
	w.g.Eventually(func(g Gomega) {
		list, err := definitions.ApiextensionsV1().CustomResourceDefinitions().List(w.Context(), metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		for i := range list.Items {
			d := &list.Items[i]
			for _, that := range those {
				g.Expect(d.Name).NotTo(Equal(that.Name), "%+v", d.Status.Conditions)
			}
		}
	}).WithTimeout(4 * deadline).WithPolling(100 * time.Millisecond).Should(Succeed())
}
