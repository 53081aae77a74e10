package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func entry(name string) v1alpha1.SliceResource {
	return v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: name, Readiness: v1alpha1.Ready}
}

func slice(spoke, name, sourceNamespace string, entries ...v1alpha1.SliceResource) *v1alpha1.AgentSlice {
	s := &v1alpha1.AgentSlice{}
	s.Namespace, s.Name = "isthmus-spoke-"+spoke, name
	s.Spec = v1alpha1.AgentSliceSpec{Spoke: spoke, SourceNamespace: sourceNamespace, Resources: entries}
	return s
}

// TestBadSlices: what is wrong is rejected with a reason, entry by entry; the rest of the slice counts.
func TestBadSlices(t *testing.T) {
	f := theFleet
	at := f.clusters[0]
	g := newGhost(t, "ghost-slices")
	src := namespace(t, "hostile")
	bad := slice(g.spoke.Name, "mixed", src, entry("good"), entry("Not_A_Label"), entry("twice"), entry("twice"))
	if err := f.hub.client.Create(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	foreign := slice(g.spoke.Name, "foreign", src, entry("stolen"))
	foreign.Spec.Spoke = at.name
	if err := f.hub.client.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	wantEntry(t, bad, "Not_A_Label", v1alpha1.SliceInvalidName)
	wantEntry(t, bad, "twice", v1alpha1.SliceDuplicateEntry)
	wantEntry(t, foreign, "stolen", v1alpha1.SliceWrongSpoke)
	// The ghost has no router, so its one good resource is declared but reaches nobody.
	for _, name := range []string{"good", "twice"} {
		answersProblem(t, at, "/"+src+"/agent/"+name, http.StatusServiceUnavailable, "no-ready-endpoint")
	}
	answersProblem(t, at, "/"+src+"/agent/stolen", http.StatusNotFound, "unknown-name")

	many := slice(g.spoke.Name, "many", src)
	for i := range 10_000 {
		many.Spec.Resources = append(many.Spec.Resources, entry(fmt.Sprintf("a%d", i)))
	}
	if err := f.hub.client.Create(t.Context(), many); !apierrors.IsInvalid(err) {
		t.Errorf("a slice of 10,000 entries: %v, want Invalid", err)
	}
}

func wantEntry(t *testing.T, s *v1alpha1.AgentSlice, name string, reason v1alpha1.SliceReason) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s: %s %s", s.Name, name, reason), func(ctx context.Context) error {
		var got v1alpha1.AgentSlice
		if err := theFleet.hub.client.Get(ctx, client.ObjectKeyFromObject(s), &got); err != nil {
			return err
		}
		for _, e := range got.Status.Entries {
			if e.Name == name && e.Reason == reason && e.Message != "" {
				return nil
			}
		}
		return fmt.Errorf("status %+v", got.Status)
	})
}

// TestBadAddresses: a report cannot send other clusters to loopback, link-local or the hub itself.
func TestBadAddresses(t *testing.T) {
	f := theFleet
	g := newGhost(t, "ghost-report")
	createReport(t, g.spoke.Name, "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1")
	eventually(t, "RouterReady is False, AddressRefused", func(ctx context.Context) error {
		var s v1alpha1.Spoke
		if err := f.hub.client.Get(ctx, client.ObjectKeyFromObject(g.spoke), &s); err != nil {
			return err
		}
		c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeRouterReady)
		if c == nil || c.Status != "False" || c.Reason != v1alpha1.ReasonAddressRefused || len(s.Status.Routers) != 0 {
			return fmt.Errorf("condition %+v, routers %v", c, s.Status.Routers)
		}
		return nil
	})
	_, err := g.enroll(t, f.clusters[0].name, "x")
	wantCode(t, "enrolment for another identity", err, codes.Unauthenticated)
	allAvailable(t)
}

// allAvailable waits until every real spoke is Available: nobody else was affected.
func allAvailable(t *testing.T) {
	t.Helper()
	for _, c := range theFleet.clusters {
		eventually(t, c.name+" is Available", func(ctx context.Context) error {
			var s v1alpha1.Spoke
			if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Name: c.name}, &s); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeAvailable) {
				return fmt.Errorf("conditions %+v", s.Status.Conditions)
			}
			return nil
		})
	}
}

func createReport(t *testing.T, spoke string, routers ...string) {
	t.Helper()
	report := &v1alpha1.SpokeReport{}
	report.Namespace, report.Name = "isthmus-spoke-"+spoke, v1alpha1.ReportName
	report.Spec = v1alpha1.SpokeReportSpec{Spoke: spoke, Session: "s1", Slices: v1alpha1.SliceDigest{Count: ptr.To(int32(0)), Hash: "0000000000000000"}}
	for _, host := range routers {
		report.Spec.Routers = append(report.Spec.Routers, v1alpha1.RouterAddress{Host: host, Port: 15443})
	}
	if err := theFleet.hub.client.Create(t.Context(), report); err != nil {
		t.Fatal(err)
	}
}

// renewLease renews a spoke's Lease once, making it first. A failure shows as the spoke's not being Available.
func renewLease(ctx context.Context, spoke string) {
	l := &coordinationv1.Lease{}
	l.Namespace, l.Name = "isthmus-spoke-"+spoke, "spoke"
	key := client.ObjectKeyFromObject(l)
	missing := apierrors.IsNotFound(theFleet.hub.client.Get(ctx, key, l))
	l.Spec.HolderIdentity = ptr.To(spoke)
	l.Spec.LeaseDurationSeconds = ptr.To(int32(10))
	l.Spec.RenewTime = ptr.To(metav1.NowMicro())
	if missing {
		_ = theFleet.hub.client.Create(ctx, l)
		return
	}
	_ = theFleet.hub.client.Update(ctx, l)
}
