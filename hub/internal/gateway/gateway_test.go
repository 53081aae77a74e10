package gateway

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// answer is what an applier says of a program that it has applied and that works.
func (f *fixture) answer(p *v1alpha1.GatewayProgram, address string) {
	f.t.Helper()
	good := func(kinds ...string) (out []metav1.Condition) {
		for _, kind := range kinds {
			out = append(out, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: kind, LastTransitionTime: metav1.Now()})
		}
		return out
	}
	before := p.DeepCopy()
	p.Status = v1alpha1.GatewayProgramStatus{AppliedGeneration: p.Generation, Conditions: good("Applied")}
	if p.Spec.Source.Kind == v1alpha1.SourceGateway {
		p.Status.Conditions = good("Applied", "Accepted", "Programmed")
		p.Status.Addresses = []v1alpha1.ProgramAddress{{Type: "IPAddress", Value: address}}
		p.Status.Listeners = []v1alpha1.ProgramListenerStatus{{Name: "http", Conditions: good("Accepted", "ResolvedRefs", "Programmed")}}
	} else {
		p.Status.Parents = []v1alpha1.ProgramParentStatus{{Name: program.Name("Gateway", p.Spec.Source.Namespace, "gw"), SectionName: "http", Conditions: good("Accepted", "ResolvedRefs")}}
	}
	f.Expect(f.api.Status().Patch(f.ctx, p, client.MergeFrom(before))).To(gomega.Succeed())
}

func (f *fixture) gatewayCondition(namespace, name, kind string) func() string {
	return func() string {
		var g gatewayv1.Gateway
		if err := f.get(&g, namespace, name); err != nil {
			return err.Error()
		}
		c := meta.FindStatusCondition(g.Status.Conditions, kind)
		if c == nil {
			return "none"
		}
		return string(c.Status) + " " + c.Reason + ": " + c.Message
	}
}

func (f *fixture) routeCondition(namespace, name, kind string) func() string {
	return func() string {
		var r gatewayv1.HTTPRoute
		if err := f.get(&r, namespace, name); err != nil {
			return err.Error()
		}
		for _, p := range r.Status.Parents {
			if p.ControllerName != program.ControllerName {
				continue
			}
			if c := meta.FindStatusCondition(p.Conditions, kind); c != nil {
				return string(c.Status) + " " + c.Reason + ": " + c.Message
			}
		}
		return "none"
	}
}

// The whole way: a Gateway and a route on the hub become programs of two clusters, and what the clusters say becomes status.
func TestGatewayAndRoute(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig)
	f.namespace("whole", nil)
	f.spoke("eu", nil)
	f.spoke("us", nil)
	f.fleet.set("/whole/agent/cart", true)
	f.create(class(), gateway("whole", "gw"), route("whole", "web", "gw", "/cart", "cart"))

	f.Eventually(func() bool {
		var c gatewayv1.GatewayClass
		return f.get(&c, "", "isthmus") == nil && meta.IsStatusConditionTrue(c.Status.Conditions, "Accepted") && len(c.Status.SupportedFeatures) > 10
	}).Should(gomega.BeTrue())
	for _, s := range []string{"eu", "us"} {
		f.Eventually(func() []string { return slices.Sorted(maps.Keys(f.programs(s))) }).Should(gomega.Equal([]string{"gw", "web"}))
		f.Eventually(func() string {
			var set v1alpha1.GatewayProgramSet
			if err := f.get(&set, "isthmus-spoke-"+s, v1alpha1.ProgramSetName); err != nil {
				return err.Error()
			}
			return set.Spec.Epoch + set.Spec.ClassName + set.Spec.Programs.Hash
		}).Should(gomega.Equal("epoch-1envoy-" + s + hashOf(f.programs(s))))
	}
	f.Eventually(f.gatewayCondition("whole", "gw", "Programmed")).Should(gomega.HavePrefix("False Pending: 0 of 2 clusters"))

	f.answer(f.programs("eu")["gw"], "10.1.0.1")
	f.answer(f.programs("eu")["web"], "")
	f.Eventually(f.gatewayCondition("whole", "gw", "Programmed")).Should(gomega.HavePrefix("False Pending: 1 of 2 clusters; us: "))
	f.Eventually(f.routeCondition("whole", "web", program.RouteProgrammed)).Should(gomega.HavePrefix("False Pending: 1 of 2 clusters; us: "))
	f.answer(f.programs("us")["gw"], "10.2.0.1")
	f.answer(f.programs("us")["web"], "")
	f.Eventually(f.gatewayCondition("whole", "gw", "Programmed")).Should(gomega.Equal("True Programmed: 2 of 2 clusters"))
	f.Eventually(f.routeCondition("whole", "web", program.RouteProgrammed)).Should(gomega.Equal("True Programmed: 2 of 2 clusters"))
	var g gatewayv1.Gateway
	f.Expect(f.get(&g, "whole", "gw")).To(gomega.Succeed())
	f.Expect(g.Status.Addresses).To(gomega.HaveLen(2))
	f.Expect(g.Status.Listeners[0].AttachedRoutes).To(gomega.Equal(int32(1)))

	// The agent goes and comes: only its rule changes, and the route says so.
	f.fleet.set("/whole/agent/cart", false)
	f.Eventually(f.routeCondition("whole", "web", "ResolvedRefs")).Should(gomega.HavePrefix("False BackendNotFound: no spoke exports /whole/agent/cart"))
	f.Eventually(func() string { return manifests(f.programs("eu")["web"]) }).Should(gomega.ContainSubstring(v1alpha1.ProgramNoBackend))
	f.fleet.set("/whole/agent/cart", true)
	f.Eventually(f.routeCondition("whole", "web", "ResolvedRefs")).Should(gomega.HavePrefix("True"))

	// A route that goes takes its program with it; so does a Gateway, and the sets say so.
	f.Expect(f.api.Delete(f.ctx, route("whole", "web", "", "/", ""))).To(gomega.Succeed())
	f.Eventually(func() int { return len(f.programs("us")) }).Should(gomega.Equal(1))
	f.Expect(f.api.Delete(f.ctx, &g)).To(gomega.Succeed())
	f.Eventually(func() int32 {
		var set v1alpha1.GatewayProgramSet
		f.Expect(f.get(&set, "isthmus-spoke-us", v1alpha1.ProgramSetName)).To(gomega.Succeed())
		return *set.Spec.Programs.Count
	}).Should(gomega.Equal(int32(0)))
	f.Eventually(func() int { return len(f.programs("us")) }).Should(gomega.Equal(0))
}

func hashOf(programs map[string]*v1alpha1.GatewayProgram) string {
	var names []string
	for _, p := range programs {
		names = append(names, p.Name)
	}
	_, hash := digest.Programs(names)
	return hash
}

func manifests(p *v1alpha1.GatewayProgram) string {
	raw, _ := json.Marshal(p.Spec.Objects)
	return string(raw)
}

// passes waits until the controller has made n more passes.
func (f *fixture) passes(n uint64) {
	f.t.Helper()
	count := func() uint64 { return samples(f.t, f.c.metrics.pass) }
	from := count()
	f.Eventually(count).Should(gomega.BeNumerically(">=", from+n))
}

// told waits until everything that is known has been compiled, and told to the owners.
func (f *fixture) told() {
	f.t.Helper()
	f.Eventually(func() int {
		for range 2 { // the first may have begun before what is known now
			f.c.poke()
			f.passes(1)
		}
		return f.c.statuses.left()
	}).Should(gomega.BeZero())
}

// A change of one of many routes writes one object for each cluster, and looking at everything again writes nothing: not
// after a restart either.
func TestWritesOnlyWhatChanged(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig, func(o *Options) { o.Resync = 100 * time.Millisecond })
	f.namespace("writes", nil)
	f.spoke("w1", nil)
	f.spoke("w2", nil)
	f.fleet.set("/writes/agent/a", true)
	f.create(class(), gateway("writes", "gw"))
	for i := range 20 {
		f.create(route("writes", "r"+string(rune('a'+i)), "gw", "/"+string(rune('a'+i)), "a"))
	}
	f.Eventually(func() []int { return []int{len(f.programs("w1")), len(f.programs("w2"))} }).Should(gomega.Equal([]int{21, 21}))
	f.told()
	f.writes.take()
	f.passes(3)
	f.Expect(f.writes.take()).To(gomega.BeEmpty(), "a resync writes nothing")

	var r gatewayv1.HTTPRoute
	f.Expect(f.get(&r, "writes", "rc")).To(gomega.Succeed())
	r.Spec.Rules[0].Matches[0].Path.Value = new(string)
	*r.Spec.Rules[0].Matches[0].Path.Value = "/changed"
	f.Expect(f.api.Update(f.ctx, &r)).To(gomega.Succeed())
	f.Eventually(func() string { return manifests(f.programs("w2")["rc"]) }).Should(gomega.ContainSubstring("/changed"))
	f.passes(3)
	got := f.writes.take()
	delete(got, "status")
	f.Expect(got).To(gomega.Equal(map[string]int{"program": 2}))

	f.stop()
	f.run(apiConfig)
	f.passes(2)
	f.Expect(f.writes.take()).To(gomega.BeEmpty(), "a restart writes nothing")

	// What somebody removes or changes comes back.
	f.Expect(f.api.Delete(f.ctx, f.programs("w1")["rd"])).To(gomega.Succeed())
	f.Eventually(func() bool { return f.programs("w1")["rd"] != nil }).Should(gomega.BeTrue())
	p := f.programs("w1")["re"]
	p.Spec.Epoch = "somebody's"
	f.Expect(f.api.Update(f.ctx, p)).To(gomega.Succeed())
	f.Eventually(func() string { return f.programs("w1")["re"].Spec.Epoch }).Should(gomega.Equal("epoch-1"))
}

// What another controller says of a route stays, and what we said goes when the route leaves our Gateway.
func TestStatusOfOthersStays(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig)
	f.namespace("others", nil)
	f.fleet.set("/others/agent/a", true)
	r := route("others", "r", "gw", "/", "a")
	f.create(class(), gateway("others", "gw"), r)
	f.Eventually(f.routeCondition("others", "r", "Accepted")).Should(gomega.HavePrefix("True"))
	foreign := gatewayv1.RouteParentStatus{ControllerName: "example.com/other", ParentRef: gatewayv1.ParentReference{Name: "theirs"}, Conditions: []metav1.Condition{
		{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", LastTransitionTime: metav1.NewTime(time.Unix(1000, 0))}}}
	f.Eventually(func() error {
		f.Expect(f.get(r, "others", "r")).To(gomega.Succeed())
		r.Status.Parents = append(r.Status.Parents, foreign)
		return f.api.Status().Update(f.ctx, r)
	}).Should(gomega.Succeed())
	f.Eventually(func() error {
		f.Expect(f.get(r, "others", "r")).To(gomega.Succeed())
		r.Spec.ParentRefs[0].Name = "theirs"
		r.Spec.ParentRefs[0].Kind = new(gatewayv1.Kind)
		*r.Spec.ParentRefs[0].Kind = "Service"
		return f.api.Update(f.ctx, r)
	}).Should(gomega.Succeed())
	f.Eventually(func() []string {
		f.Expect(f.get(r, "others", "r")).To(gomega.Succeed())
		var out []string
		for _, p := range r.Status.Parents {
			out = append(out, string(p.ControllerName))
		}
		return out
	}).Should(gomega.Equal([]string{"example.com/other"}))
}

// Spokes are selected by label; one that is no longer selected, or is being deleted, loses its programs.
func TestSelection(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig)
	f.namespace("select", nil)
	f.spoke("s-in", map[string]string{"tier": "edge"})
	going := f.spoke("s-going", map[string]string{"tier": "edge"})
	g := gateway("select", "gw")
	g.Annotations = map[string]string{program.AnnotationSelector: "tier=edge"}
	f.create(class(), g)
	count := func(spoke string) func() int { return func() int { return len(f.programs(spoke)) } }
	f.Eventually(count("s-in")).Should(gomega.Equal(1))
	f.Eventually(count("s-going")).Should(gomega.Equal(1))

	going.Finalizers = []string{"isthmus.dev/spoke"}
	f.Expect(f.api.Update(f.ctx, going)).To(gomega.Succeed())
	f.Expect(f.api.Delete(f.ctx, going)).To(gomega.Succeed())
	f.Eventually(count("s-going")).Should(gomega.Equal(0))
	f.Expect(f.get(going, "", "s-going")).To(gomega.Succeed())
	going.Finalizers = nil
	f.Expect(f.api.Update(f.ctx, going)).To(gomega.Succeed())

	// A slip in the selector withdraws nothing; one that selects another does.
	set := func(selector string) {
		before := g.DeepCopy()
		g.Annotations[program.AnnotationSelector] = selector
		f.Expect(f.api.Patch(f.ctx, g, client.MergeFrom(before))).To(gomega.Succeed())
	}
	set("tier==edge=")
	f.Eventually(f.gatewayCondition("select", "gw", "Accepted")).Should(gomega.HavePrefix("False InvalidParameters: annotation isthmus.dev/spoke-selector"))
	f.Expect(count("s-in")()).To(gomega.Equal(1))
	set("tier=core")
	f.Eventually(count("s-in")).Should(gomega.Equal(0))
	f.Eventually(f.gatewayCondition("select", "gw", "Programmed")).Should(gomega.HavePrefix("False NoResources: no Spoke matches"))
}

// A hub without the Gateway API works, and takes it up when it is installed.
func TestGatewayAPIArrivesLater(t *testing.T) {
	cfg := kubetest.For(t, kubetest.HubCRDs())
	f := connect(t, cfg)
	f.run(cfg)
	f.spoke("late", nil)
	f.namespace("late", nil)
	f.Eventually(func() float64 { return value(t, f.c.metrics.missing) }).Should(gomega.Equal(1.0))
	if _, err := envtest.InstallCRDs(cfg, envtest.CRDInstallOptions{Paths: []string{kubetest.GatewayCRDs()}}); err != nil {
		t.Fatal(err)
	}
	f.create(class(), gateway("late", "gw"))
	f.Eventually(func() int { return len(f.programs("late")) }).Should(gomega.Equal(1))
	f.Expect(value(t, f.c.metrics.missing)).To(gomega.Equal(0.0))
	if !strings.Contains(manifests(f.programs("late")["gw"]), v1alpha1.ProgramBackend) {
		t.Error("no default route to the router")
	}
}
