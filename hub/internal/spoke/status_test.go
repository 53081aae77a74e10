package spoke

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// TestStumbleChangesNothing: what could not be read stays as it was.
func TestStumbleChangesNothing(t *testing.T) {
	s := &scope{spoke: &v1alpha1.Spoke{}, namespace: "isthmus-spoke-eu", now: time.Unix(1e9, 0), usable: true, join: joinState{known: true, enrolled: true},
		seen: seen{built: true, counts: counts{exported: 3}, known: liveness.Knowledge{SpokeFacts: liveness.SpokeFacts{Availability: liveness.Available}}}}
	describe(s)
	before := s.spoke.Status.DeepCopy()
	s.usable, s.built, s.join, s.counts, s.now = false, false, joinState{}, counts{}, s.now.Add(time.Hour)
	describe(s)
	g := gomega.NewWithT(t)
	g.Expect(s.spoke.Status).To(gomega.Equal(*before))
	g.Expect(meta.IsStatusConditionTrue(before.Conditions, v1alpha1.SpokeJoined)).To(gomega.BeTrue())
}

func TestJoinedReasons(t *testing.T) {
	now := time.Unix(1e9, 0)
	for want, s := range map[string]*scope{
		v1alpha1.ReasonNamespaceConflict: {now: now, conflict: "x", join: joinState{enrolled: true}},
		v1alpha1.ReasonEnrolled:          {now: now, join: joinState{enrolled: true}},
		v1alpha1.ReasonTokenExpired:      {now: now, join: joinState{failed: true, expires: now.Add(-time.Second)}},
		v1alpha1.ReasonAwaitingEnrolment: {now: now, join: joinState{expires: now.Add(time.Hour)}},
	} {
		if c := joined(s); c.Reason != want || c.Message == "" || (c.Status == metav1.ConditionTrue) != (want == v1alpha1.ReasonEnrolled) {
			t.Errorf("%+v, want %s", c, want)
		}
	}
}

// TestHubRestart: a new leader, whose engine has built nothing yet, tears down nothing that the status says.
func TestHubRestart(t *testing.T) {
	first := start(t)
	first.spoke("again")
	first.join("again")
	first.create(lease("again"))
	first.engine.change(func() { first.engine.counts["again"] = counts{exported: 5, stale: true} })
	first.condition("again", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	first.condition("again", v1alpha1.SpokeJoined, metav1.ConditionTrue, v1alpha1.ReasonEnrolled) // it has a Lease; the last of what the first has to say
	before := first.condition("again", v1alpha1.SpokeStale, metav1.ConditionTrue, v1alpha1.ReasonIncomplete)

	built := make(chan struct{})
	second := start(t, func(o *Options, _ *liveness.Options) { o.Built = built })
	second.nudge("again", "somewhere")
	// Seen by the second, whichever of the two wrote: only the first has anything else to say.
	first.engine.change(func() { first.engine.counts["again"] = counts{exported: 5, stale: true} })
	second.Consistently(func() v1alpha1.SpokeStatus {
		var s v1alpha1.Spoke
		second.Expect(second.get(&s, "", "again")).To(gomega.Succeed())
		for i := range s.Status.Conditions {
			s.Status.Conditions[i].ObservedGeneration = 0
		}
		return s.Status
	}, "500ms").Should(gomega.Equal(func() v1alpha1.SpokeStatus {
		for i := range before.Status.Conditions {
			before.Status.Conditions[i].ObservedGeneration = 0
		}
		return before.Status
	}()))
	close(built)
	second.condition("again", v1alpha1.SpokeStale, metav1.ConditionFalse, v1alpha1.ReasonComplete)
}

// TestUsedTokenIsNotReplacedUnderTheCall: between the use of a token and the mark of the enrolment lies a moment.
func TestUsedTokenIsNotReplacedUnderTheCall(t *testing.T) {
	f := start(t)
	f.spoke("used")
	secret, _ := f.join("used")
	key := client.ObjectKeyFromObject(secret)
	used := client.RawPatch(types.MergePatchType, []byte(`{"data":null,"metadata":{"annotations":{"isthmus.dev/token-sha256":null,"isthmus.dev/token-expires":null,"isthmus.dev/token-used":"`+
		f.clock.Now().UTC().Format(time.RFC3339)+`"}}}`))
	f.Expect(api.Patch(f.ctx, secret, used)).To(gomega.Succeed())
	hasToken := func() bool {
		var s corev1.Secret
		f.Expect(api.Get(f.ctx, key, &s)).To(gomega.Succeed())
		return !hubidentity.TokenExpires(&s).IsZero()
	}
	f.Consistently(hasToken, "500ms").Should(gomega.BeFalse())
	// The call died before it left its mark: the spoke gets another chance.
	f.clock.Step(2 * time.Minute)
	f.nudge("used", "a")
	f.Eventually(hasToken).Should(gomega.BeTrue())
}

// TestLabelTakenOff: what is ours is so by its place.
func TestLabelTakenOff(t *testing.T) {
	f := start(t)
	f.spoke("label")
	f.join("label")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-label", Name: "spoke"}}
	f.Expect(api.Patch(f.ctx, account, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null}}`)))).To(gomega.Succeed())
	f.Eventually(func() map[string]string {
		f.Expect(f.get(account, "isthmus-spoke-label", "spoke")).To(gomega.Succeed())
		return account.Labels
	}).Should(gomega.HaveKeyWithValue(spokeLabel, "label"))
}

// TestStatusThatIsNotTrueIsCorrected: a status that says something else than what is known (a cache that was behind when the
// spoke was last looked at) is looked at again when it arrives.
func TestStatusThatIsNotTrueIsCorrected(t *testing.T) {
	f := start(t)
	f.spoke("behind")
	f.join("behind")
	f.create(lease("behind"))
	spoke := f.condition("behind", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	before := spoke.DeepCopy()
	meta.SetStatusCondition(&spoke.Status.Conditions, metav1.Condition{
		Type: v1alpha1.SpokeAvailable, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonMassExpiry, Message: "an older truth",
	})
	if err := api.Status().Patch(t.Context(), spoke, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	f.condition("behind", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
}
