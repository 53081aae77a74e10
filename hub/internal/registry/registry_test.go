package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/digest"
)

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		glob, namespace string
		want            bool
	}{
		{"*", "a", true}, {"a", "a", true}, {"a", "ab", false}, {"team-*", "team-a", true}, {"team-*", "team-", true},
		{"team-*", "a-team-", false}, {"*-prod", "shop-prod", true}, {"*-prod", "shop-prod-2", false},
		{"a*b*c", "a-b-c", true}, {"a*b*c", "abc", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"a**", "a", true},
	} {
		if got := Allowed([]v1alpha1.NamespaceGlob{"zzz", v1alpha1.NamespaceGlob(c.glob)}, c.namespace); got != c.want {
			t.Errorf("%q admits %q: %v, want %v", c.glob, c.namespace, got, c.want)
		}
	}
}

func spokeObject(name string, uid types.UID, globs ...v1alpha1.NamespaceGlob) *v1alpha1.Spoke {
	if len(globs) == 0 {
		globs = []v1alpha1.NamespaceGlob{"*"}
	}
	return &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid, Generation: 1}, Spec: v1alpha1.SpokeSpec{Namespaces: globs}}
}

func resource(name string) v1alpha1.SliceResource {
	return v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: name, Readiness: v1alpha1.Ready}
}

func sliceObject(spoke, name string, generation int64, resources ...string) *v1alpha1.AgentSlice {
	s := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: NamespacePrefix + spoke, Name: name, Generation: generation}}
	s.Spec = v1alpha1.AgentSliceSpec{Spoke: spoke, SourceNamespace: "ns"}
	for _, r := range resources {
		s.Spec.Resources = append(s.Spec.Resources, resource(r))
	}
	return s
}

func report(spoke, session string, all ...*v1alpha1.AgentSlice) *v1alpha1.SpokeReport {
	var specs []v1alpha1.AgentSliceSpec
	for _, s := range all {
		specs = append(specs, s.Spec)
	}
	count, hash := digest.Of(specs)
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: NamespacePrefix + spoke, Name: v1alpha1.ReportName}}
	r.Spec = v1alpha1.SpokeReportSpec{Spoke: spoke, Session: session, Slices: v1alpha1.SliceDigest{Count: &count, Hash: hash}}
	return r
}

func TestValidateRejectsEntryByEntry(t *testing.T) {
	zero, long := int32(0), strings.Repeat("x", 64)
	bad := "-"
	spec := v1alpha1.AgentSliceSpec{Spoke: "eu", SourceNamespace: "ns", Resources: []v1alpha1.SliceResource{
		resource("good"), resource("good"), resource("Not_A_Label"), resource(long), resource("a.b"), resource(""),
		{Type: "zebra", Name: "z", Readiness: v1alpha1.Ready},
		{Type: v1alpha1.TypeAgent, Name: "unready", Readiness: "Perhaps"},
		{Type: v1alpha1.TypeAgent, Name: "timeout", Readiness: v1alpha1.Ready, RequestTimeoutSeconds: &zero},
		{Type: v1alpha1.TypeAgent, Name: "protocol", Readiness: v1alpha1.Ready, Protocols: []v1alpha1.Protocol{"SOAP"}},
		{Type: v1alpha1.TypeAgent, Name: "label", Readiness: v1alpha1.Ready, Labels: []v1alpha1.Label{{Key: "k", Value: &bad}}},
		{Type: v1alpha1.TypeMCP, Name: "good", Readiness: v1alpha1.NotReady},
	}}
	accepted, rejected := Validate(spokeObject("eu", "u"), "s", &spec)
	var names, reasons []string
	for _, e := range accepted {
		names = append(names, e.Path())
	}
	for _, r := range rejected {
		reasons = append(reasons, string(r.Reason))
		if r.Message == "" || r.Name == "" || r.Type == "" {
			t.Errorf("status %+v is not valid", r)
		}
	}
	if d := cmp.Diff([]string{"/ns/agent/good", "/ns/mcp/good"}, names); d != "" {
		t.Error(d)
	}
	want := []string{"DuplicateEntry", "InvalidName", "InvalidName", "InvalidName", "InvalidName", "Invalid", "Invalid", "Invalid", "Invalid", "Invalid"}
	if d := cmp.Diff(want, reasons); d != "" {
		t.Error(d)
	}
}

func TestValidateRejectsWholeSlices(t *testing.T) {
	for want, change := range map[v1alpha1.SliceReason]func(*v1alpha1.AgentSliceSpec){
		v1alpha1.SliceWrongSpoke:          func(s *v1alpha1.AgentSliceSpec) { s.Spoke = "us" },
		v1alpha1.SliceNamespaceNotAllowed: func(s *v1alpha1.AgentSliceSpec) { s.SourceNamespace = "secret" },
		v1alpha1.SliceInvalid:             func(s *v1alpha1.AgentSliceSpec) { s.SourceNamespace = "../ns" },
	} {
		spec := sliceObject("eu", "s", 1, "a", "b").Spec
		change(&spec)
		accepted, rejected := Validate(spokeObject("eu", "u", "ns"), "s", &spec)
		if len(accepted) != 0 || len(rejected) != 2 || rejected[0].Reason != want {
			t.Errorf("%s: accepted %v, rejected %v", want, accepted, rejected)
		}
	}
}

func TestValidateBoundsTheSlice(t *testing.T) {
	spec := v1alpha1.AgentSliceSpec{Spoke: "eu", SourceNamespace: "ns"}
	for i := range 10_000 {
		spec.Resources = append(spec.Resources, resource(fmt.Sprintf("r%d", i)))
	}
	accepted, rejected := Validate(spokeObject("eu", "u"), "s", &spec)
	if len(accepted) != v1alpha1.MaxSliceResources || len(rejected) != 10_000-v1alpha1.MaxSliceResources {
		t.Errorf("%d accepted, %d rejected", len(accepted), len(rejected))
	}
}

// fixture is a registry with one spoke, eu, whose namespace is its own.
func fixture() *Registry {
	r := New(time.Now)
	r.SetSpoke(spokeObject("eu", "u1"))
	r.SetNamespace(NamespacePrefix+"eu", "u1")
	return r
}

func none(string) Liveness { return Liveness{} }

// names are the resources of namespace ns that count, those that are held with a star. The shard must have been dirty.
func names(t *testing.T, c Changes) []string {
	t.Helper()
	entries, dirty := c.Shards["ns"]
	if !dirty {
		t.Fatal("the shard is not dirty")
	}
	out := []string{}
	for _, e := range entries {
		if e.Held {
			e.Name += "*"
		}
		out = append(out, e.Name)
	}
	slices.Sort(out)
	return out
}

func TestWithdrawalNeedsACompleteSession(t *testing.T) {
	r := fixture()
	check := func(step string, want ...string) {
		t.Helper()
		if d := cmp.Diff(append([]string{}, want...), names(t, r.Take(none))); d != "" {
			t.Fatalf("%s: %s", step, d)
		}
	}
	one, two := sliceObject("eu", "one", 1, "a", "b"), sliceObject("eu", "two", 1, "c")
	r.SetSlice(one)
	r.SetSlice(two)
	check("added at once", "a", "b", "c")
	r.DeleteSlice(two.Namespace, two.Name)
	check("no report: held", "a", "b", "c*")
	one2 := sliceObject("eu", "one", 2, "a", "d")
	r.SetReport(report("eu", "s1", one2))
	r.SetSlice(one2)
	check("agrees: withdrawn", "a", "d")
	r.SetSlice(sliceObject("eu", "one", 3, "d"))
	check("complete session: at once", "d")
	r.SetReport(report("eu", "s2", one2)) // a new session that disagrees
	r.DeleteSlice(one2.Namespace, one2.Name)
	check("new session: held", "d*")
	again := sliceObject("eu", "one", 4, "d", "e")
	r.SetSlice(again)
	check("declared again: not held any more", "d", "e")
	r.SetReport(report("eu", "s2", again))
	r.Take(none)
	r.DeleteSlice(again.Namespace, again.Name)
	check("complete again: at once")
}

func TestALostReportHolds(t *testing.T) {
	r := fixture()
	s := sliceObject("eu", "one", 1, "a")
	r.SetSlice(s)
	r.SetReport(report("eu", "s1", s))
	r.Take(none)
	r.DeleteReport(s.Namespace)
	r.DeleteSlice(s.Namespace, s.Name)
	c := r.Take(none)
	if d := cmp.Diff([]string{"a*"}, names(t, c)); d != "" {
		t.Error(d)
	}
	if f := c.Facts["eu"]; f.Complete || f.Reported || f.Resources != 1 {
		t.Errorf("facts %+v", f)
	}
}

func TestARuleIsNoAbsence(t *testing.T) {
	r := fixture()
	r.SetSlice(sliceObject("eu", "one", 1, "a"))
	r.Take(none)
	changed := spokeObject("eu", "u1", "other")
	changed.Generation = 2
	r.SetSpoke(changed)
	c := r.Take(none)
	if got := names(t, c); len(got) != 0 {
		t.Errorf("%v counts although its namespace is not allowed any more", got)
	}
	if c.Facts["eu"].Rejected != 1 {
		t.Errorf("facts %+v", c.Facts["eu"])
	}
}

func TestOneNameInTwoSlicesIsOnePlace(t *testing.T) {
	r := fixture()
	unready := sliceObject("eu", "one", 1, "a")
	unready.Spec.Resources[0].Readiness = v1alpha1.NotReady
	r.SetSlice(unready)
	r.SetSlice(sliceObject("eu", "two", 1, "a"))
	entries := r.Take(none).Shards["ns"]
	if len(entries) != 1 || !entries[0].Ready || len(entries[0].From) != 2 {
		t.Fatalf("entries %+v", entries)
	}
	r.DeleteSlice(unready.Namespace, "two")
	if entries := r.Take(none).Shards["ns"]; len(entries) != 1 || entries[0].Ready || entries[0].Held {
		t.Fatalf("entries %+v, want what the other slice says", entries)
	}
}

func TestAForeignNamespaceCountsForNothing(t *testing.T) {
	for name, owner := range map[string]types.UID{"nobody's": "", "another spoke's": "u0"} {
		r := New(time.Now)
		r.SetSlice(sliceObject("eu", "one", 1, "a"))
		r.SetNamespace(NamespacePrefix+"eu", owner)
		r.SetSpoke(spokeObject("eu", "u1"))
		if got := r.Take(none).Shards["ns"]; len(got) != 0 {
			t.Errorf("%s namespace: %v", name, got)
		}
		r.SetNamespace(NamespacePrefix+"eu", "u1")
		if d := cmp.Diff([]string{"a"}, names(t, r.Take(none))); d != "" {
			t.Errorf("%s namespace, then ours: %s", name, d)
		}
	}
}

func TestADeletedSpokeCountsForNothing(t *testing.T) {
	r := fixture()
	r.SetSlice(sliceObject("eu", "one", 1, "a"))
	r.Take(none)
	going := spokeObject("eu", "u1")
	going.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	going.Generation = 2
	r.SetSpoke(going)
	c := r.Take(none)
	if got := names(t, c); len(got) != 0 || len(c.Spokes) != 0 || !c.Fleet {
		t.Errorf("entries %v, spokes %v", got, c.Spokes)
	}
	if _, ok := r.Admitted("eu", "u1"); ok {
		t.Error("still admitted")
	}
	r.DeleteSlice(NamespacePrefix+"eu", "one")
	r.SetNamespace(NamespacePrefix+"eu", "")
	r.DeleteSpoke("eu")
	r.Take(none)
	if len(r.members) != 0 {
		t.Errorf("%d members left", len(r.members))
	}
}

func TestASuccessorOfTheSameNameInheritsNothing(t *testing.T) {
	r := fixture()
	s := sliceObject("eu", "one", 1, "a")
	r.SetSlice(s)
	r.Take(none)
	r.DeleteSlice(s.Namespace, s.Name) // held
	r.Take(none)
	r.SetSpoke(spokeObject("eu", "u2"))
	r.SetNamespace(s.Namespace, "u2")
	if got := names(t, r.Take(none)); len(got) != 0 {
		t.Errorf("%v is held over from another spoke", got)
	}
}

func TestLivenessIsAChangeOfTheFleet(t *testing.T) {
	r := fixture()
	r.Take(none)
	l := Liveness{Lease: federate.LeaseExpired, Routers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:15443")}}
	c := r.Take(func(string) Liveness { return l })
	if !c.Fleet || c.Spokes["eu"].Lease != federate.LeaseExpired || len(c.Spokes["eu"].Routers) != 1 {
		t.Errorf("%+v", c)
	}
	if c := r.Take(func(string) Liveness { return l }); c.Fleet || len(c.Shards) != 0 {
		t.Errorf("nothing changed, but %+v", c)
	}
}

func TestStatusIsNoChange(t *testing.T) {
	r := fixture()
	s := sliceObject("eu", "one", 1, "a")
	r.SetSlice(s)
	r.Take(none)
	<-r.Changed()
	status := s.DeepCopy()
	status.Status.Entries = []v1alpha1.SliceEntryStatus{{Type: "agent", Name: "a"}}
	r.SetSlice(status)
	spoke := spokeObject("eu", "u1")
	spoke.Status.Namespace = "x"
	r.SetSpoke(spoke)
	select {
	case <-r.Changed():
		t.Error("a status woke the engine")
	default:
	}
}

// Whatever a spoke's slices and report do: what is declared counts; in a session that never was complete nothing that counted
// is withdrawn; when report and slices agree exactly what is declared counts.
func TestBelief(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBelief()
		declared := map[string][]string{} // slice -> names
		counted := map[string]bool{}      // counted since the last time that everything was sure
		entries := func(slice string, names []string) []federate.Entry {
			var out []federate.Entry
			for _, n := range names {
				out = append(out, federate.Entry{Key: federate.Key{Namespace: "ns", Type: "agent", Name: n}, Spoke: "eu", From: []string{slice}})
			}
			return out
		}
		check := func() {
			want := map[string]bool{}
			for _, ns := range declared {
				for _, n := range ns {
					want[n] = true
				}
			}
			if b.complete {
				counted = map[string]bool{}
			}
			for n := range want {
				counted[n] = true
			}
			got := map[string]bool{}
			for _, e := range b.entries("ns") {
				if got[e.Name] {
					t.Fatalf("%s counts twice", e.Name)
				}
				if got[e.Name] = true; e.Held == want[e.Name] {
					t.Fatalf("%s: held %v, declared %v", e.Name, e.Held, want[e.Name])
				}
			}
			if d := cmp.Diff(counted, got); d != "" {
				t.Fatal(d)
			}
			if b.total != len(got) {
				t.Fatalf("count %d, want %d", b.total, len(got))
			}
		}
		slice := rapid.SampledFrom([]string{"one", "two"})
		t.Repeat(map[string]func(*rapid.T){
			"declare": func(t *rapid.T) {
				s := slice.Draw(t, "slice")
				declared[s] = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID[string]).Draw(t, "names")
				b.declare(s, entries(s, declared[s]), nil)
				check()
			},
			"report": func(t *rapid.T) {
				b.report(rapid.SampledFrom([]string{"", "s1", "s2"}).Draw(t, "session"))
				check()
			},
			"agree": func(*rapid.T) {
				b.agree()
				check()
			},
		})
	})
}
