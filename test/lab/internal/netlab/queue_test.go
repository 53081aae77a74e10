package netlab

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDelayQueue: whatever the delays, packets leave in order, none before its time, none later than it and those before
// it need, and none is lost.
func TestDelayQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q delayQueue
		now := time.Unix(1000, 0)
		var dues []time.Time
		got := 0
		check := func() {
			for _, b := range q.pop(now) {
				if int(b[0]) != got%256 || now.Before(dues[got]) {
					t.Fatalf("packet %d left as number %d at %s, due %s", b[0], got, now, dues[got])
				}
				got++
			}
			if next, ok := q.next(); ok && !next.After(now) {
				t.Fatal("a due packet stayed")
			}
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				delay := time.Duration(rapid.IntRange(0, 50).Draw(t, "delay")) * time.Millisecond
				if !q.push(now, delay, []byte{byte(len(dues) % 256)}) {
					t.Fatal("no room")
				}
				dues = append(dues, now.Add(delay))
			} else {
				now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "step")) * time.Millisecond)
				check()
			}
		}
		now = now.Add(time.Minute)
		check()
		if got != len(dues) || q.bytes != 0 {
			t.Fatalf("%d of %d left, %d bytes counted", got, len(dues), q.bytes)
		}
	})
}

func TestDelayQueueIsBounded(t *testing.T) {
	var q delayQueue
	now, body := time.Unix(0, 0), make([]byte, maxQueued/4)
	for i := range 4 {
		if !q.push(now, time.Second, body) {
			t.Fatalf("packet %d does not fit", i)
		}
	}
	if q.push(now, time.Second, []byte{1}) {
		t.Error("a packet fits into a full queue")
	}
	if n := len(q.pop(now.Add(time.Second))); n != 4 {
		t.Errorf("%d packets left", n)
	}
	if !q.push(now, time.Second, body) {
		t.Error("no room in an empty queue")
	}
}

func TestDestination(t *testing.T) {
	v4 := make([]byte, 20)
	v4[0] = 0x45
	copy(v4[16:], []byte{10, 65, 0, 9})
	v6 := make([]byte, 40)
	v6[0] = 0x60
	for name, tc := range map[string]struct {
		packet []byte
		want   netip.Addr
	}{
		"v4": {v4, netip.MustParseAddr("10.65.0.9")}, "v6": {v6, netip.Addr{}}, "short": {v4[:19], netip.Addr{}}, "empty": {nil, netip.Addr{}},
	} {
		if got := destination(tc.packet); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}
