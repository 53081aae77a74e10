package spoke

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

func (f *fixture) join(name string) (*corev1.Secret, values) {
	var secret corev1.Secret
	f.Eventually(func() error { return f.get(&secret, "isthmus-spoke-"+name, "join") }).Should(gomega.Succeed())
	var v values
	f.Expect(yaml.UnmarshalStrict(secret.Data["values.yaml"], &v)).To(gomega.Succeed())
	return &secret, v
}

func TestAdmission(t *testing.T) {
	f := start(t)
	f.spoke("adm")
	s := f.condition("adm", v1alpha1.SpokeJoined, metav1.ConditionFalse, v1alpha1.ReasonAwaitingEnrolment)
	f.condition("adm", v1alpha1.SpokeAvailable, metav1.ConditionUnknown, v1alpha1.ReasonNeverSeen)
	f.condition("adm", v1alpha1.SpokeRouterReady, metav1.ConditionFalse, v1alpha1.ReasonNoRouter)
	f.condition("adm", v1alpha1.SpokeConflicted, metav1.ConditionFalse, v1alpha1.ReasonNoConflict)
	f.condition("adm", v1alpha1.SpokeStale, metav1.ConditionFalse, v1alpha1.ReasonComplete)
	f.Expect(s.Status.Namespace).To(gomega.Equal("isthmus-spoke-adm"))
	f.Expect(s.Status.Identity).To(gomega.Equal("spiffe://fleet/spoke/adm/" + string(s.UID)[:8]))
	f.Expect(s.Finalizers).To(gomega.ContainElement(Finalizer))

	var ns corev1.Namespace
	f.Expect(f.get(&ns, "", "isthmus-spoke-adm")).To(gomega.Succeed())
	f.Expect(ns.Annotations).To(gomega.HaveKeyWithValue("isthmus.dev/spoke-uid", string(s.UID)))

	secret, v := f.join("adm")
	var want values
	want.Fleet, want.Spoke.Name, want.Join.Token = "fleet", "adm", v.Join.Token
	want.Hub.Address, want.Hub.CABundle, want.Hub.APIServer, want.Hub.APICABundle = "hub.example:8443", "bundle", "https://hub.example:6443", "api-ca"
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	f.Expect(v.Join.Token).To(gomega.HaveLen(43))
	f.Expect(hubidentity.TokenExpires(secret)).To(gomega.BeTemporally("~", f.clock.Now().Add(time.Hour), time.Second))
	for key, value := range secret.Annotations {
		if strings.Contains(value, v.Join.Token) {
			t.Errorf("annotation %s holds the token", key)
		}
	}
}

// TestRights asks the API server what the spoke's account may do.
func TestRights(t *testing.T) {
	f := start(t)
	f.spoke("rights")
	f.condition("rights", v1alpha1.SpokeJoined, metav1.ConditionFalse, v1alpha1.ReasonAwaitingEnrolment)
	const ns, other = "isthmus-spoke-rights", "default"
	cases := []struct {
		namespace, verbs, group, resource, sub string
		want                                   bool
	}{
		{ns, "get list watch create update patch delete", "isthmus.dev", "agentslices", "", true},
		{ns, "get list watch create update patch", "isthmus.dev", "spokereports", "", true},
		{ns, "get create update patch", "coordination.k8s.io", "leases", "", true},
		{ns, "get list watch", "isthmus.dev", "gatewayprograms", "", true},
		{ns, "update patch", "isthmus.dev", "gatewayprograms", "status", true},
		{ns, "get list watch", "isthmus.dev", "gatewayprogramsets", "", true},
		{ns, "update patch", "isthmus.dev", "gatewayprogramsets", "status", true},
		{ns, "create update delete", "isthmus.dev", "gatewayprogramsets", "", false},
		{ns, "update patch", "isthmus.dev", "agentslices", "status", false},
		{ns, "get list create update delete", "", "secrets", "", false},
		{ns, "create update delete", "isthmus.dev", "gatewayprograms", "", false},
		{ns, "create", "", "serviceaccounts", "token", false},
		{ns, "delete", "coordination.k8s.io", "leases", "", false},
		{other, "get list create", "isthmus.dev", "agentslices", "", false},
		{other, "get", "coordination.k8s.io", "leases", "", false},
		{"", "get list update", "isthmus.dev", "spokes", "", false},
		{"", "get", "", "namespaces", "", false},
	}
	may := func(namespace, verb, group, resource, sub string) bool {
		sar := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + ns + ":spoke",
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: sub},
		}}
		f.Expect(api.Create(f.ctx, sar)).To(gomega.Succeed())
		return sar.Status.Allowed
	}
	f.Eventually(func() bool { return may(ns, "get", "isthmus.dev", "agentslices", "") }).Should(gomega.BeTrue())
	for _, c := range cases {
		for verb := range strings.FieldsSeq(c.verbs) {
			if got := may(c.namespace, verb, c.group, c.resource, c.sub); got != c.want {
				t.Errorf("%s %s.%s/%s in %q: %t", verb, c.resource, c.group, c.sub, c.namespace, got)
			}
		}
	}
	// What somebody takes away comes back.
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "spoke"}}
	f.Expect(api.Delete(f.ctx, role)).To(gomega.Succeed())
	f.Eventually(func() error { return f.get(role, ns, "spoke") }).Should(gomega.Succeed())
}

func TestForeignNamespaceIsNotAdopted(t *testing.T) {
	f := start(t)
	f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-spoke-taken"}})
	f.spoke("taken")
	s := f.condition("taken", v1alpha1.SpokeJoined, metav1.ConditionFalse, v1alpha1.ReasonNamespaceConflict)
	f.Expect(s.Status.Namespace).To(gomega.BeEmpty())
	f.event("taken", v1alpha1.ReasonNamespaceConflict, "was not made for this Spoke")
	var ns corev1.Namespace
	f.Expect(f.get(&ns, "", "isthmus-spoke-taken")).To(gomega.Succeed())
	f.Expect(ns.Annotations).NotTo(gomega.HaveKey("isthmus.dev/spoke-uid"))
	f.Expect(apierrors.IsNotFound(f.get(&corev1.ServiceAccount{}, "isthmus-spoke-taken", "spoke"))).To(gomega.BeTrue())

	// It can be deleted, and the namespace stays.
	f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", "taken")) }).Should(gomega.BeTrue())
	f.Expect(f.get(&ns, "", "isthmus-spoke-taken")).To(gomega.Succeed())
	f.Expect(ns.DeletionTimestamp).To(gomega.BeNil())
}

// nudge has a Spoke reconciled.
func (f *fixture) nudge(name, region string) {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"location":{"region":%q}}}`, region))
	f.Expect(api.Patch(f.ctx, &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name}}, patch)).To(gomega.Succeed())
}

func TestTokenIsRenewedUntilEnrolment(t *testing.T) {
	f := start(t)
	f.spoke("renew")
	_, first := f.join("renew")
	f.clock.Step(56 * time.Minute)
	f.nudge("renew", "a")
	f.Eventually(func() string { _, v := f.join("renew"); return v.Join.Token }).ShouldNot(gomega.Equal(first.Join.Token))

	mark := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/enrolled":"2026-01-01T00:00:00Z"}}}`))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-renew", Name: "spoke"}}
	f.Expect(api.Patch(f.ctx, account, mark)).To(gomega.Succeed())
	f.condition("renew", v1alpha1.SpokeJoined, metav1.ConditionTrue, v1alpha1.ReasonEnrolled)
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&corev1.Secret{}, "isthmus-spoke-renew", "join")) }).Should(gomega.BeTrue())
	f.event("renew", v1alpha1.ReasonEnrolled, "")
	f.clock.Step(2 * time.Hour)
	f.nudge("renew", "b")
	f.Consistently(func() bool { return apierrors.IsNotFound(f.get(&corev1.Secret{}, "isthmus-spoke-renew", "join")) }, "500ms").Should(gomega.BeTrue())
}

// TestEnrolThroughTheService joins the two rooms: the Secret that the controller made is what Enroll takes.
func TestEnrolThroughTheService(t *testing.T) {
	f := start(t)
	f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "enrol-hub"}})
	f.spoke("enrol")
	_, v := f.join("enrol")
	enrol(f, t, v)
	f.condition("enrol", v1alpha1.SpokeJoined, metav1.ConditionTrue, v1alpha1.ReasonEnrolled)
	f.Expect(apierrors.IsNotFound(f.get(&corev1.Secret{}, "isthmus-spoke-enrol", "join"))).To(gomega.BeTrue())
}

func lease(name string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-" + name, Name: "spoke"}}
	l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Unix(1e9, 0)))
	return l
}

func report(name string, hosts ...string) *v1alpha1.SpokeReport {
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-" + name, Name: "spoke"}}
	r.Spec = v1alpha1.SpokeReportSpec{Spoke: name, Session: "s", Version: "v1.2.3", Slices: v1alpha1.SliceDigest{Count: ptr.To(int32(0)), Hash: "0000000000000000"}}
	for _, h := range hosts {
		r.Spec.Routers = append(r.Spec.Routers, v1alpha1.RouterAddress{Host: h, Port: 15443})
	}
	return r
}

func TestLeaseAndReport(t *testing.T) {
	f := start(t, func(_ *Options, l *liveness.Options) {
		l.LeaseDuration, l.Tick, l.MassPercent = time.Second, 50*time.Millisecond, 100 // of other tests there are silent ones
		l.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
	})
	f.spoke("live")
	f.join("live")
	l := lease("live")
	f.create(l)
	f.condition("live", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	f.condition("live", v1alpha1.SpokeJoined, metav1.ConditionTrue, v1alpha1.ReasonEnrolled) // only who enrolled can write it
	f.condition("live", v1alpha1.SpokeAvailable, metav1.ConditionUnknown, v1alpha1.ReasonLeaseExpired)
	f.event("live", v1alpha1.ReasonLeaseExpired, "used last")
	l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Unix(1e9+3, 0)))
	f.Expect(api.Update(f.ctx, l)).To(gomega.Succeed())
	f.condition("live", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)

	r := report("live", "127.0.0.1", "169.254.169.254", "192.168.0.1")
	f.create(r)
	s := f.condition("live", v1alpha1.SpokeRouterReady, metav1.ConditionFalse, v1alpha1.ReasonAddressRefused)
	f.Expect(s.Status.Routers).To(gomega.BeEmpty())
	f.Expect(s.Status.Version).To(gomega.Equal("v1.2.3"))
	f.event("live", v1alpha1.ReasonAddressRefused, "169.254.169.254 port 15443: it is link-local")
	f.event("live", v1alpha1.ReasonAddressRefused, "192.168.0.1 port 15443: it is in none of the allowed networks")
	r.Spec.Routers = append(r.Spec.Routers, v1alpha1.RouterAddress{Host: "10.0.0.5", Port: 15443})
	f.Expect(api.Update(f.ctx, r)).To(gomega.Succeed())
	s = f.condition("live", v1alpha1.SpokeRouterReady, metav1.ConditionTrue, v1alpha1.ReasonRouterReported)
	f.Expect(s.Status.Routers).To(gomega.Equal([]v1alpha1.RouterAddress{{Host: "10.0.0.5", Port: 15443}}))
}

func TestFindingsReachTheStatus(t *testing.T) {
	f := start(t)
	f.spoke("found")
	f.condition("found", v1alpha1.SpokeStale, metav1.ConditionFalse, v1alpha1.ReasonComplete)
	f.engine.change(func() { f.engine.counts["found"] = counts{exported: 7, conflicts: 2, stale: true} })
	f.condition("found", v1alpha1.SpokeStale, metav1.ConditionTrue, v1alpha1.ReasonIncomplete)
	s := f.condition("found", v1alpha1.SpokeConflicted, metav1.ConditionTrue, v1alpha1.ReasonPropertiesConflict)
	f.Expect(s.Status.Exported).To(gomega.HaveValue(gomega.Equal(int32(7))))
	f.event("found", v1alpha1.ReasonPropertiesConflict, "2 resources")
	f.engine.change(func() { f.engine.counts["found"] = counts{exported: 7, rejected: 1} })
	f.condition("found", v1alpha1.SpokeConflicted, metav1.ConditionTrue, v1alpha1.ReasonEntriesRejected)
	f.engine.change(func() { f.engine.counts["found"] = counts{cut: 3} })
	f.condition("found", v1alpha1.SpokeLimited, metav1.ConditionTrue, v1alpha1.ReasonPlacesCut)
	f.engine.change(func() { f.engine.counts["found"] = counts{large: []string{"shop"}, cut: 3} })
	f.condition("found", v1alpha1.SpokeLimited, metav1.ConditionTrue, v1alpha1.ReasonLargeNamespace)
	f.event("found", v1alpha1.ReasonLargeNamespace, "of 3 resources not all places are used")
	f.event("found", v1alpha1.ReasonLargeNamespace, "shop among them")
	f.engine.change(func() { f.engine.counts["found"] = counts{} })
	f.condition("found", v1alpha1.SpokeConflicted, metav1.ConditionFalse, v1alpha1.ReasonNoConflict)
	f.condition("found", v1alpha1.SpokeLimited, metav1.ConditionFalse, v1alpha1.ReasonWithinLimits)
	f.condition("found", v1alpha1.SpokeStale, metav1.ConditionFalse, v1alpha1.ReasonComplete)
	f.engine.change(func() { f.engine.lost = []string{"epoch-1"} })
	s = f.condition("found", v1alpha1.SpokeStale, metav1.ConditionTrue, v1alpha1.ReasonStoreRestored)
	f.Expect(meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeStale).Message).To(gomega.ContainSubstring("epoch-1"))
	f.engine.change(func() { f.engine.counts["found"] = counts{stale: true} }) // what concerns this one comes first
	f.condition("found", v1alpha1.SpokeStale, metav1.ConditionTrue, v1alpha1.ReasonIncomplete)
	f.engine.change(func() { f.engine.counts["found"], f.engine.lost = counts{}, nil })
	f.condition("found", v1alpha1.SpokeStale, metav1.ConditionFalse, v1alpha1.ReasonComplete)
}

// TestDeletion checks what is still there at each step: the withdrawal comes before everything, credentials go before
// the namespace, the Spoke goes last; the same name again is another identity.
func TestDeletion(t *testing.T) {
	f := start(t)
	const ns = "isthmus-spoke-del"
	first := f.spoke("del")
	f.join("del")
	acknowledged := make(chan struct{})
	f.engine.withdraw = func(ctx context.Context, _ string) error {
		select {
		case <-acknowledged:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.Expect(api.Delete(f.ctx, first)).To(gomega.Succeed())
	f.Eventually(f.withdrawals).Should(gomega.ContainElement("del"))
	// Nothing is taken before the acknowledgement.
	for name, o := range map[string]client.Object{"spoke": &rbacv1.RoleBinding{}, "join": &corev1.Secret{}} {
		f.Expect(f.get(o, ns, name)).To(gomega.Succeed())
	}
	close(acknowledged)
	f.Eventually(func() bool {
		var n corev1.Namespace
		return f.get(&n, "", ns) == nil && !n.DeletionTimestamp.IsZero()
	}).Should(gomega.BeTrue())
	// By the time that the namespace goes, the credentials are gone.
	for name, o := range map[string]client.Object{"spoke": &rbacv1.RoleBinding{}, "join": &corev1.Secret{}} {
		f.Expect(apierrors.IsNotFound(f.get(o, ns, name))).To(gomega.BeTrue(), name)
	}
	f.Expect(apierrors.IsNotFound(f.get(&corev1.ServiceAccount{}, ns, "spoke"))).To(gomega.BeTrue())
	f.Expect(apierrors.IsNotFound(f.get(&rbacv1.Role{}, ns, "spoke"))).To(gomega.BeTrue())
	// The Spoke stays until the namespace is gone.
	f.Consistently(func() error { return f.get(&v1alpha1.Spoke{}, "", "del") }, "300ms").Should(gomega.Succeed())
	f.finalize(ns)
	f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", "del")) }).Should(gomega.BeTrue())

	f.spoke("del")
	second := f.condition("del", v1alpha1.SpokeJoined, metav1.ConditionFalse, v1alpha1.ReasonAwaitingEnrolment)
	f.Expect(second.Status.Identity).NotTo(gomega.HaveSuffix(string(first.UID)[:8]))
	f.join("del")
}

func (f *fixture) withdrawals() []string {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	return append([]string{}, f.engine.withdrawn...)
}

// TestDeletionIsBounded: a router that never acknowledges holds nobody up for ever, an engine that fails not either.
func TestDeletionIsBounded(t *testing.T) {
	f := start(t, func(o *Options, _ *liveness.Options) { o.WithdrawTimeout = 200 * time.Millisecond })
	f.engine.withdraw = func(ctx context.Context, name string) error {
		if name == "mute" {
			<-ctx.Done()
			return ctx.Err()
		}
		f.clock.Step(time.Second) // the engine takes its time to fail
		return errors.New("broken")
	}
	for _, name := range []string{"mute", "broken"} {
		s := f.spoke(name)
		f.join(name)
		f.Expect(api.Delete(f.ctx, s)).To(gomega.Succeed())
		f.finalize("isthmus-spoke-" + name)
		f.Eventually(func() bool { return apierrors.IsNotFound(f.get(&v1alpha1.Spoke{}, "", name)) }).Should(gomega.BeTrue())
		f.event(name, "WithdrawalIncomplete", "not every router")
	}
}

func TestSliceStatus(t *testing.T) {
	f := start(t)
	f.spoke("sl")
	f.join("sl")
	key := types.NamespacedName{Namespace: "isthmus-spoke-sl", Name: "one"}
	slice := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	slice.Spec = v1alpha1.AgentSliceSpec{Spoke: "sl", SourceNamespace: "team", Resources: []v1alpha1.SliceResource{{Type: "agent", Name: "Bad_Name", Readiness: "Ready"}}}
	f.create(slice)
	entry := v1alpha1.SliceEntryStatus{Type: "agent", Name: "Bad_Name", Reason: v1alpha1.SliceInvalidName, Message: "use a DNS label"}
	f.engine.change(func() {
		f.engine.entries[key], f.engine.gens[key] = []v1alpha1.SliceEntryStatus{entry}, slice.Generation
	})
	read := func() []v1alpha1.SliceEntryStatus {
		var got v1alpha1.AgentSlice
		f.Expect(api.Get(f.ctx, key, &got)).To(gomega.Succeed())
		return got.Status.Entries
	}
	f.Eventually(read).Should(gomega.Equal([]v1alpha1.SliceEntryStatus{entry}))
	f.event("one", string(v1alpha1.SliceInvalidName), "agent team/Bad_Name: use a DNS label")

	// What was found of another generation is not written.
	f.engine.change(func() { f.engine.entries[key], f.engine.gens[key] = nil, slice.Generation+1 })
	f.Consistently(read, "400ms").Should(gomega.HaveLen(1))
	f.engine.change(func() { f.engine.gens[key] = slice.Generation })
	f.Eventually(read).Should(gomega.BeEmpty())
}

func TestSetupSaysWhatIsMissing(t *testing.T) {
	o := Options{Fleet: "fleet"}
	if err := o.complete(nil); err == nil || !strings.Contains(err.Error(), "HubAddress") {
		t.Errorf("got %v", err)
	}
}
