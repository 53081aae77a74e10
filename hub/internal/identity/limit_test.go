package identity

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
)

// Whoever guesses tokens makes the hub read no more than it can bear, and a spoke that joins after that is admitted.
func TestEnrolmentsAreLimited(t *testing.T) {
	clk := clocktesting.NewFakeClock(time.Now())
	namespace(t, "limited", nil)
	h := newHub(t, "limited", clk)
	h.service.opts.Recorder = events.NewFakeRecorder(2 * enrolmentsAtOnce) // nobody reads them
	_, token := admit(t, "limited", clk.Now())
	for range enrolmentsAtOnce {
		_, err := h.enroll(t, "limited", "guessed")
		wantCode(t, "a guess", err, codes.Unauthenticated)
	}
	_, err := h.enroll(t, "limited", "guessed")
	wantCode(t, "one guess more", err, codes.ResourceExhausted)
	clk.Step(time.Second)
	if _, err := h.enroll(t, "limited", token); err != nil {
		t.Errorf("a second later the spoke itself: %v", err)
	}
	if n := testutil.ToFloat64(h.service.metrics.enrolments.WithLabelValues("limited")); n != 1 {
		t.Errorf("%v calls counted as limited, want 1", n)
	}
}
