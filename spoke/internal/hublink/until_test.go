package hublink

import (
	"testing"
	"time"
)

func TestAPauseEndsWithTheCertificate(t *testing.T) {
	for _, tc := range []struct{ pause, left, want time.Duration }{
		{time.Minute, time.Hour, time.Minute},
		{time.Minute, 20 * time.Second, 20*time.Second + firstRetry},
		{time.Second, 20 * time.Second, time.Second},
		{time.Minute, 0, time.Minute},
		{time.Minute, -time.Hour, time.Minute},
	} {
		if got := untilEnd(tc.pause, tc.left); got != tc.want {
			t.Errorf("a pause of %s with %s left: %s, want %s", tc.pause, tc.left, got, tc.want)
		}
	}
}
