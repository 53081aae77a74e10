package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventsv1 "k8s.io/api/events/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Gateway, route and Spoke are deleted in every order, and the spoke never says a word: nothing stays, and nothing of a user's
// waits for a finalizer of ours.
func TestDeletedInEveryOrder(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig)
	f.create(class())
	for i, order := range []string{"grs", "gsr", "rgs", "rsg", "sgr", "srg"} {
		t.Run(order, func(t *testing.T) {
			name := fmt.Sprintf("order-%d", i)
			f.namespace(name, nil)
			f.fleet.set("/"+name+"/agent/cart", true)
			spoke := f.spoke(name, map[string]string{"order": name})
			patch := client.MergeFrom(spoke.DeepCopy())
			spoke.Finalizers = []string{"isthmus.dev/test"} // as the Spoke's controller holds it until the spoke is withdrawn
			f.Expect(f.api.Patch(f.ctx, spoke, patch)).To(gomega.Succeed())
			gw := gateway(name, "gw")
			gw.Annotations = map[string]string{"isthmus.dev/spoke-selector": "order=" + name}
			web := route(name, "web", "gw", "/", "cart")
			f.create(gw, web)
			f.Eventually(func() int { return len(f.programs(name)) }).Should(gomega.Equal(2))
			for _, p := range f.programs(name) {
				f.Expect(p.Finalizers).To(gomega.BeEmpty())
			}
			for _, c := range order {
				o := map[rune]client.Object{'g': gw, 'r': web, 's': spoke}[c]
				f.Expect(f.api.Delete(f.ctx, o)).To(gomega.Succeed())
				if c != 's' { // at once: there is nothing to wait for
					f.Expect(client.IgnoreNotFound(f.get(o, name, o.GetName()))).To(gomega.Succeed())
					f.Expect(f.get(o, name, o.GetName())).NotTo(gomega.Succeed())
				}
			}
			f.Eventually(func() int { return len(f.programs(name)) }).Should(gomega.BeZero())
			patch = client.MergeFrom(spoke.DeepCopy())
			spoke.Finalizers = nil
			f.Expect(client.IgnoreNotFound(f.api.Patch(f.ctx, spoke, patch))).To(gomega.Succeed())
		})
	}
}

// What a spoke cannot apply is an Event of the program, and so is that it can again.
func TestAppliedIsTold(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig)
	f.namespace("told", nil)
	f.spoke("told", map[string]string{"told": "yes"})
	gw := gateway("told", "gw")
	gw.Annotations = map[string]string{"isthmus.dev/spoke-selector": "told=yes"}
	f.create(class(), gw)
	f.Eventually(func() int { return len(f.programs("told")) }).Should(gomega.Equal(1))
	f.applied("told", metav1.ConditionFalse, v1alpha1.ReasonDrifted, "changed by somebody, last by \"kubectl\"")
	f.Eventually(func() string { return f.events("told") }).Should(gomega.ContainSubstring("Warning Drifted: changed by somebody, last by \"kubectl\""))
	f.applied("told", metav1.ConditionTrue, v1alpha1.ReasonApplied, "")
	f.Eventually(func() string { return f.events("told") }).Should(gomega.ContainSubstring("Normal Applied: applied again"))
}

// applied writes what a spoke says of its one program.
func (f *fixture) applied(spoke string, status metav1.ConditionStatus, reason, message string) {
	f.t.Helper()
	for _, p := range f.programs(spoke) {
		before := p.DeepCopy()
		meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: v1alpha1.ProgramApplied, Status: status, Reason: reason, Message: message})
		p.Status.AppliedGeneration = p.Generation
		f.Expect(f.api.Status().Patch(f.ctx, p, client.MergeFrom(before))).To(gomega.Succeed())
	}
}

// events are those of the programs of a spoke, as text.
func (f *fixture) events(spoke string) string {
	var list eventsv1.EventList
	f.Expect(f.api.List(f.ctx, &list, client.InNamespace("isthmus-spoke-"+spoke))).To(gomega.Succeed())
	var out strings.Builder
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Kind == "GatewayProgram" {
			fmt.Fprintf(&out, "%s %s: %s\n", e.Type, e.Reason, e.Note)
		}
	}
	return out.String()
}
