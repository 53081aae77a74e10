package engine

import (
	"testing"
	"time"
)

func at(ms int) time.Time { return time.UnixMilli(1_000_000 + int64(ms)) }

func TestPace(t *testing.T) {
	var p pace
	if due := p.change(at(0)); !due.Equal(at(0)) {
		t.Errorf("the first change waits until %v", due)
	}
	if due := p.change(at(1)); !due.Equal(at(0)) {
		t.Errorf("a second change makes the first wait until %v", due)
	}
	if waited, changed := p.build(at(1), time.Millisecond, 1000); waited != time.Millisecond || !changed {
		t.Errorf("waited %v, %v; want 1 ms", waited, changed)
	}
	if due := p.change(at(5)); !due.Equal(at(25)) {
		t.Errorf("a change that follows at 5 ms is due at %v, want 25 ms", due)
	}
	if due := p.change(at(20)); !due.Equal(at(40)) {
		t.Errorf("with another one at 20 ms it is due at %v, want 40 ms", due)
	}
	for ms := 40; ms <= 100; ms += 10 {
		if due := p.change(at(ms)); due.After(at(105)) {
			t.Errorf("a change waits until %v, longer than 100 ms", due)
		}
	}
	p.build(at(105), time.Millisecond, 1000)
	if due := p.change(at(200)); !due.Equal(at(200)) {
		t.Errorf("after a quiet moment a change waits until %v", due)
	}
}

// How long changes gather follows from what a build costs, within bounds.
func TestPaceFollowsTheCost(t *testing.T) {
	for _, c := range []struct {
		took   time.Duration
		spokes int
		want   time.Duration
	}{
		{0, 0, briefest},
		{100 * time.Microsecond, 3, briefest},
		{time.Millisecond, 3, 5060 * time.Microsecond},
		{100 * time.Microsecond, 500, 10500 * time.Microsecond},
		{time.Millisecond, 1000, quiet},
		{time.Second, 1, quiet},
	} {
		var p pace
		if _, changed := p.build(at(0), c.took, c.spokes); changed {
			t.Error("a build without a change says that there was one")
		}
		p.change(at(1)) // the first that follows
		if due := p.change(at(1)); !due.Equal(at(1).Add(c.want)) {
			t.Errorf("a build of %v for %d spokes: the next is due after %v, want %v", c.took, c.spokes, due.Sub(at(1)), c.want)
		}
	}
}

// Parts of what waits of a spoke that changes too fast follow each other as fast as building them may cost, and take a small share
// while others change too; they are larger where telling them costs more.
func TestTurnsGiveWay(t *testing.T) {
	var alone turns
	if rest, again := alone.built(at(0), 2*time.Millisecond, 3, time.Millisecond); rest != share*2*time.Millisecond+3*perSpoke || !again {
		t.Errorf("alone: the next part is due in %v, %t", rest, again)
	}
	if rest, again := alone.built(at(0), 0, 0, 0); rest != breath || again {
		t.Errorf("nothing waits: %v, %t", rest, again)
	}
	var busy turns
	busy.beside(at(0))
	if rest, _ := busy.built(at(500), 2*time.Millisecond, 3, time.Millisecond); rest != shareBeside*2*time.Millisecond+3*perSpoke {
		t.Errorf("beside others: the next part is due in %v", rest)
	}
	if rest, _ := busy.built(at(1000), 2*time.Millisecond, 3, time.Millisecond); rest != share*2*time.Millisecond+3*perSpoke {
		t.Errorf("a second after others: the next part is due in %v", rest)
	}
	if small, large := busy.enough(), (&turns{telling: 1000 * perSpoke}).enough(); small != partEntries || large != 6*partEntries {
		t.Errorf("parts of %d and %d entries", small, large)
	}
}
