package hublink_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

// TestAClockThatIsSet beyond the certificate's end is noticed within minutes, not when the timer of the next renewal fires; nothing is lost, and all is
// well once it is right again, with the identity that there was.
func TestAClockThatIsSet(t *testing.T) {
	l, _ := joined(t, "clock-is-set")
	before, _ := l.src.Leaf()
	l.set.Store(int64(before.NotAfter.Sub(l.clock.Now()) + 240*time.Hour)) // by it the hub's certificate has ended, too
	for range 5 {
		l.clock.Step(time.Minute)
		l.g.Eventually(l.clock.HasWaiters).WithTimeout(deadline).Should(BeTrue())
	}
	l.g.Eventually(func() error {
		if s, detail := l.keeper.Status(); s != hublink.Lapsed {
			return fmt.Errorf("%s: %s", s, detail)
		}
		return nil
	}).WithTimeout(deadline).Should(Succeed())
	if _, detail := l.keeper.Status(); !strings.Contains(detail, "this clock says "+l.clock.Now().Add(time.Duration(l.set.Load())).UTC().Format("2006-01-02")) {
		t.Errorf("it does not say what the clock says: %s", detail)
	}
	if leaf, _ := l.src.Leaf(); !leaf.Equal(before) {
		t.Error("the certificate was given up")
	}
	l.set.Store(0)
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/0123abcd")
}
