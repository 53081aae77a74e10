package spoke

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/freeport"
)

// replica is a second controller of the same spoke, with ports of its own.
func (f *fixture) replica(pod string) *fixture {
	out := *f
	out.opts.Pod = pod
	out.opts.MetricsAddress, out.opts.HealthAddress = freeport.Address(f.T), freeport.Address(f.T)
	return &out
}

func (f *fixture) leads() bool {
	return strings.Contains(f.get(f.opts.MetricsAddress+"/metrics"), "\nisthmus_controller_leading 1\n")
}

// leader waits until exactly one of two replicas leads, and returns it and the other.
func leader(a, b *fixture) (leads, waits *fixture) {
	a.Helper()
	a.g.Eventually(func() bool {
		if leads, waits = a, b; b.leads() {
			leads, waits = b, a
		}
		return leads.leads() && !waits.leads()
	}).WithTimeout(patience).WithPolling(50 * time.Millisecond).Should(BeTrue())
	return leads, waits
}

// TestReplicas: one of two works. What takes the leadership away, another holder of the Lease or the end of the process,
// ends the work of the one, and somebody goes on with it, with the identity that is stored.
func TestReplicas(t *testing.T) {
	a := newFixture(t)
	b := a.replica("isthmus-spoke-1")
	a.agent("before")
	stops := map[*fixture]func(){a: a.run()}
	a.ready()
	stops[b] = b.run()
	first, _ := leader(a, b)
	a.g.Eventually(a.exported).WithTimeout(patience).Should(Equal(1))
	session := a.report().Session

	// Somebody else takes the Lease, and does not renew it.
	leases := a.kube.CoordinationV1().Leases(a.opts.Namespace)
	a.g.Eventually(func() error {
		l, err := leases.Get(t.Context(), leaderLease, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.Spec.HolderIdentity, l.Spec.RenewTime = ptr.To("somebody"), ptr.To(metav1.NowMicro())
		_, err = leases.Update(t.Context(), l, metav1.UpdateOptions{})
		return err
	}).WithTimeout(patience).Should(Succeed())
	a.g.Eventually(first.leads).WithTimeout(patience).WithPolling(20 * time.Millisecond).Should(BeFalse())
	second, waits := leader(a, b)
	a.g.Eventually(func() string { return a.report().Session }).WithTimeout(patience).ShouldNot(Equal(session))
	a.agent("after")
	a.g.Eventually(a.exported).WithTimeout(patience).Should(Equal(2))

	// The one that leads ends.
	session = a.report().Session
	stops[second]()
	a.g.Eventually(waits.leads).WithTimeout(patience).WithPolling(20 * time.Millisecond).Should(BeTrue())
	a.g.Eventually(func() string { return a.report().Session }).WithTimeout(patience).ShouldNot(Equal(session))
	a.agent("last")
	a.g.Eventually(a.exported).WithTimeout(patience).Should(Equal(3))
	if n := a.hub.Issued(); n != 1 {
		t.Errorf("%d certificates issued: who takes over must use the stored one", n)
	}
	stops[waits]()
}
