package netlab

import (
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
				if !q.push(now, delay, 0, []byte{byte(len(dues) % 256)}) {
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
		if !q.push(now, time.Second, 0, body) {
			t.Fatalf("packet %d does not fit", i)
		}
	}
	if q.push(now, time.Second, 0, []byte{1}) {
		t.Error("a packet fits into a full queue")
	}
	if n := len(q.pop(now.Add(time.Second))); n != 4 {
		t.Errorf("%d packets left", n)
	}
	if !q.push(now, time.Second, 0, body) {
		t.Error("no room in an empty queue")
	}
}

// TestDelayQueueKeepsARate: at 8 Mbit/s a thousand bytes take a millisecond, and what would wait too long is lost.
func TestDelayQueueKeepsARate(t *testing.T) {
	var q delayQueue
	now, body := time.Unix(0, 0), make([]byte, 1000)
	taken := 0
	for q.push(now, 10*time.Millisecond, 8_000_000, body) {
		taken++
	}
	if want := int(maxWait/time.Millisecond) + 1; taken != want {
		t.Errorf("%d packets fit, want %d", taken, want)
	}
	for i := 1; i <= taken; i++ {
		if n := len(q.pop(now.Add(time.Duration(10+i)*time.Millisecond - 1))); n != 0 {
			t.Fatalf("packet %d left before its turn", i)
		}
		if n := len(q.pop(now.Add(time.Duration(10+i) * time.Millisecond))); n != 1 {
			t.Fatalf("%d packets left at turn %d", n, i)
		}
	}
	if !q.push(now.Add(time.Minute), 0, 8_000_000, body) {
		t.Error("no room on an idle path")
	}
}
