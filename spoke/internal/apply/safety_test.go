package apply_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/apply"
)

func (w *world) anotherHub(name string) string {
	w.Helper()
	ns := "isthmus-spoke-" + name
	w.create(w.hub, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	return ns
}

// TestHubComesBackEmpty loses the hub in every way there is. Nothing goes, until somebody says so.
func TestHubComesBackEmpty(t *testing.T) {
	w := newWorld(t, "empty")
	everything := []string{"Gateway gw", "HTTPRoute shop"}
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly(everything...)
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
	w.stop()

	t.Run("no namespace, no set", func(t *testing.T) {
		w.start("isthmus-spoke-no-such-namespace")
		w.keeps(everything...)
		w.stop()
	})
	second := w.anotherHub("empty-second")
	t.Run("an empty set of another epoch", func(t *testing.T) {
		w.count(second, "e2")
		w.start(second)
		message := w.setCondition(second, v1alpha1.ProgramSetStale, v1alpha1.ReasonEpochChanged)
		w.g.Expect(message).To(And(ContainSubstring("2 objects"), ContainSubstring(apply.AcknowledgeAnnotation+"=e2")))
		w.keeps(everything...)
		w.stop()
	})
	t.Run("the memory of the epoch is gone too", func(t *testing.T) {
		if err := w.cluster.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: apply.EpochConfigMap}}); err != nil {
			t.Fatal(err)
		}
		w.start(second)
		w.keeps(everything...)
	})
	t.Run("half of the programs", func(t *testing.T) {
		w.program(second, "gw", "e2", nil, gateway("gw", "*.example.org"))
		w.count(second, "e2", "shop") // shop is still to come
		w.eventually(func(g Gomega) {
			gw := &gatewayv1.Gateway{}
			w.get(g, gw, "gw")
			g.Expect(*gw.Spec.Listeners[0].Hostname).To(Equal(gatewayv1.Hostname("*.example.org")), "changes count at once")
		})
		w.keeps(everything...)
	})
	t.Run("all programs: the epoch is acknowledged by itself", func(t *testing.T) {
		w.program(second, "shop", "e2", nil, route("shop", "gw", "/shop/agent/cart"))
		w.count(second, "e2")
		w.setCondition(second, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
		w.stop()
	})
	t.Run("told to", func(t *testing.T) {
		third := w.anotherHub("empty-third")
		w.count(third, "e3")
		w.start(third)
		w.setCondition(third, v1alpha1.ProgramSetStale, v1alpha1.ReasonEpochChanged)
		w.keeps(everything...)
		set := &v1alpha1.GatewayProgramSet{ObjectMeta: metav1.ObjectMeta{Namespace: third, Name: v1alpha1.ProgramSetName}}
		annotate := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"`+apply.AcknowledgeAnnotation+`":"e3"}}}`))
		if err := w.hub.Patch(t.Context(), set, annotate); err != nil {
			t.Fatal(err)
		}
		w.hasOnly()
		w.setCondition(third, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
	})
}

// TestHubWasRestored: the set is an earlier state than what things were removed by. Nothing goes, until it is as new again.
func TestHubWasRestored(t *testing.T) {
	w := newWorld(t, "restored")
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly("Gateway gw", "HTTPRoute shop")
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
	w.stop()
	// An API server lowers no generation. What the applier remembers is raised instead.
	remembered := &corev1.ConfigMap{}
	if err := w.cluster.Get(t.Context(), client.ObjectKey{Namespace: w.here, Name: apply.EpochConfigMap}, remembered); err != nil {
		t.Fatal(err)
	}
	uid, generation, ok := strings.Cut(remembered.Data["newestSet"], "/")
	n, err := strconv.Atoi(generation)
	if !ok || err != nil {
		t.Fatalf("remembered %v", remembered.Data)
	}
	remembered.Data["newestSet"] = fmt.Sprintf("%s/%d", uid, n+3)
	if err := w.cluster.Update(t.Context(), remembered); err != nil {
		t.Fatal(err)
	}
	w.unprogram(w.onHub, "shop")
	w.count(w.onHub, "e1") // n+1
	w.start(w.onHub)
	message := w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonBehind)
	w.g.Expect(message).To(ContainSubstring("1 objects"))
	w.keeps("Gateway gw", "HTTPRoute shop")
	w.count(w.onHub, "e1", "more") // n+2
	w.count(w.onHub, "e1")         // n+3
	w.hasOnly("Gateway gw")
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
}

// TestDoneIsSaidOfTheSetByWhichThingsWent: while programs and set disagree, the condition is of the set before.
func TestDoneIsSaidOfTheSetByWhichThingsWent(t *testing.T) {
	w := newWorld(t, "doneset")
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	generations := func(g Gomega) (observed, now int64) {
		set := &v1alpha1.GatewayProgramSet{}
		g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: w.onHub, Name: v1alpha1.ProgramSetName}, set)).To(Succeed())
		if c := meta.FindStatusCondition(set.Status.Conditions, v1alpha1.ProgramSetStale); c != nil && c.Status == metav1.ConditionFalse {
			observed = c.ObservedGeneration
		}
		return observed, set.Generation
	}
	done := func(g Gomega) {
		observed, now := generations(g)
		g.Expect(observed).To(Equal(now))
	}
	w.eventually(done)
	w.count(w.onHub, "e1", "more")
	w.never(func(g Gomega) {
		observed, now := generations(g)
		g.Expect(observed).To(BeNumerically("<", now))
	})
	w.unprogram(w.onHub, "shop")
	w.count(w.onHub, "e1")
	w.eventually(done)
	w.g.Expect(w.has(w.g)).To(ConsistOf("Gateway gw"), "said before it was gone")
}

// TestNotOurs has users' objects in the way.
func TestNotOurs(t *testing.T) {
	w := newWorld(t, "notours")
	theirs := gateway("gw", "theirs.example.com")
	theirs.Namespace, theirs.Spec.GatewayClassName = w.here, "their-class"
	w.create(w.cluster, theirs)
	// Labels alone make nothing ours: this one names a program that is gone.
	labelled := route("kept", "gw", "/x/agent/y")
	labelled.Namespace, labelled.Labels = w.here, map[string]string{apply.ProgramLabel: "gone"}
	w.create(w.cluster, labelled)
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "ours.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.g.Expect(w.says("gw", v1alpha1.ReasonNotOurs)).To(ContainSubstring("Gateway gw in namespace " + w.here))
	w.says("shop", v1alpha1.ReasonApplied)
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
	w.never(func(g Gomega) {
		gw := &gatewayv1.Gateway{}
		w.get(g, gw, "gw")
		g.Expect(gw.ResourceVersion).To(Equal(theirs.ResourceVersion))
		w.get(g, &gatewayv1.HTTPRoute{}, "kept")
	})
	t.Run("the owner deletes it", func(t *testing.T) {
		if err := w.cluster.Delete(t.Context(), theirs); err != nil {
			t.Fatal(err)
		}
		w.says("gw", v1alpha1.ReasonApplied)
	})
	t.Run("the owner hands it over", func(t *testing.T) {
		mine := route("blog", "gw", "/mine/agent/x")
		mine.Namespace = w.here
		w.create(w.cluster, mine)
		w.program(w.onHub, "blog", "e1", nil, route("blog", "gw", "/blog/agent/x"))
		w.says("blog", v1alpha1.ReasonNotOurs)
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"`+apply.ProgramLabel+`":"blog"}}}`))
		if err := w.cluster.Patch(t.Context(), mine, patch); err != nil {
			t.Fatal(err)
		}
		w.says("blog", v1alpha1.ReasonApplied)
	})
}

// TestDrift has a user edit what is programmed.
func TestDrift(t *testing.T) {
	w := newWorld(t, "drift")
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("shop", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.says("gw", v1alpha1.ReasonApplied)
	w.says("shop", v1alpha1.ReasonApplied)
	edit := func(port string) {
		patch := client.RawPatch("application/json-patch+json", []byte(`[{"op":"replace","path":"/spec/listeners/0/port","value":`+port+`},{"op":"add","path":"/metadata/labels/example.com~1theirs","value":"yes"}]`))
		gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: "gw"}}
		w.eventually(func(g Gomega) {
			g.Expect(w.cluster.Patch(t.Context(), gw, patch, client.FieldOwner("some-user"))).To(Succeed())
		})
	}
	back := func(g Gomega) {
		gw := &gatewayv1.Gateway{}
		w.get(g, gw, "gw")
		g.Expect(gw.Spec.Listeners[0].Port).To(Equal(gatewayv1.PortNumber(80)))
		g.Expect(gw.Labels["example.com/theirs"]).To(Equal("yes"), "what the hub does not speak of is left alone")
	}
	edit("81")
	w.eventually(back)
	w.says("gw", v1alpha1.ReasonApplied) // once may happen
	edit("82")
	w.eventually(back)
	edit("83")
	w.eventually(back)
	w.g.Expect(w.says("gw", v1alpha1.ReasonDrifted)).To(And(ContainSubstring(`"some-user"`), ContainSubstring("3 times")))
	w.says("shop", v1alpha1.ReasonApplied)
	edit("84") // later, but put back all the same
	w.eventually(back)
	t.Run("deleted", func(t *testing.T) {
		if err := w.cluster.Delete(t.Context(), &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: "shop"}}); err != nil {
			t.Fatal(err)
		}
		w.hasOnly("Gateway gw", "HTTPRoute shop")
		w.says("shop", v1alpha1.ReasonApplied)
	})
	t.Run("with the hub away", func(t *testing.T) {
		w.program(w.onHub, "blog", "e1", nil, route("blog", "gw", "/blog/agent/x"))
		w.says("blog", v1alpha1.ReasonApplied)
		w.endSession()
		if err := w.cluster.Delete(t.Context(), &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: "blog"}}); err != nil {
			t.Fatal(err)
		}
		w.hasOnly("Gateway gw", "HTTPRoute blog", "HTTPRoute shop")
	})
}

// TestRejected has the API server refuse one program of two, and the spoke another.
func TestRejected(t *testing.T) {
	w := newWorld(t, "rejected")
	bad := gateway("bad", "*.example.com")
	bad.Spec.Listeners = nil
	secret := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "gateway.networking.k8s.io/v1beta1", Kind: "Gateway"}, ObjectMeta: metav1.ObjectMeta{Name: "old"}}
	w.program(w.onHub, "bad", "e1", nil, bad)
	w.program(w.onHub, "old", "e1", nil, secret)
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.says("gw", v1alpha1.ReasonApplied)
	w.g.Expect(w.says("bad", v1alpha1.ReasonRejected)).To(ContainSubstring("spec.listeners"))
	w.g.Expect(w.says("old", v1alpha1.ReasonRejected)).To(ContainSubstring("gateway.networking.k8s.io/v1"))
	w.program(w.onHub, "bad", "e1", nil, gateway("bad", "*.example.com"))
	w.says("bad", v1alpha1.ReasonApplied)
	t.Run("a change that is refused leaves what is in force", func(t *testing.T) {
		w.program(w.onHub, "gw", "e1", nil, func() *gatewayv1.Gateway { g := gateway("gw", "*.example.com"); g.Spec.Listeners = nil; return g }())
		w.says("gw", v1alpha1.ReasonRejected)
		gw := &gatewayv1.Gateway{}
		w.get(w.g, gw, "gw")
		w.g.Expect(gw.Spec.Listeners).To(HaveLen(1))
		p := &v1alpha1.GatewayProgram{}
		w.g.Expect(w.hub.Get(t.Context(), client.ObjectKey{Namespace: w.onHub, Name: "gw"}, p)).To(Succeed())
		w.g.Expect(p.Status.AppliedGeneration).To(Equal(p.Generation - 1))
	})
}
