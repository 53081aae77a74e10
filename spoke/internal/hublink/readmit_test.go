package hublink_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

// A hub that lost its store knows nobody. When it is restored, the same leaf is good again, and nobody has to do anything.
func TestASpokeThatTheHubKnowsAgain(t *testing.T) {
	l := newLink(t, "again")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	l.hub.Delete("eu")
	l.keeper.Refresh()
	l.await(time.Second, hublink.Rejected, "deleted")
	l.hub.Admit("eu", "0123abcd", "not in the file")
	l.await(10*time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/0123abcd")
	if n := testutil.ToFloat64(gauge(t, l.registry, "isthmus_hublink_rejected")); n != 0 {
		t.Errorf("rejected = %v", n)
	}
	if n := l.hub.Issued(); n != 2 {
		t.Errorf("%d certificates issued, want the first and one renewal", n)
	}
}

// TestASpokeKeepsItsIdentity with a hub that lost its store and lets it: it shows the leaf that it had when it uses the new token.
func TestASpokeKeepsItsIdentity(t *testing.T) {
	l := newLink(t, "keeps")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "0123abcd")
	l.hub.Lose()
	l.keeper.Refresh()
	l.await(time.Second, hublink.Rejected, "deleted")
	l.hub.Admit("eu", "fedcba98", "another")
	l.write("token", "another")
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/0123abcd")
	l.g.Eventually(func() string { return l.stored().ID.UID8 }).WithTimeout(deadline).Should(Equal("0123abcd"))
}

// TestAClockThatIsAhead has the hub's time to renew lie in the past of the spoke's clock, always.
func TestAClockThatIsAhead(t *testing.T) {
	l := newLink(t, "ahead")
	l.hub.RenewAfter = -time.Hour
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	for range 9 {
		l.clock.Step(time.Minute)
		l.g.Consistently(l.hub.Issued).WithTimeout(20 * time.Millisecond).Should(Equal(1))
	}
	l.g.Eventually(func() int { l.clock.Step(10 * time.Second); return l.hub.Issued() }).WithTimeout(deadline).Should(Equal(2))
}
