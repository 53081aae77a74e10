package proc

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched is a Keeper whose states a test can wait for.
type watched struct {
	*Keeper
	changed chan struct{}
}

func keep(t *testing.T, run *Runner, script string, again func(int) bool) watched {
	t.Helper()
	w := watched{changed: make(chan struct{}, 1)}
	w.Keeper = &Keeper{Name: "test", Again: again, Changed: func() {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}, Start: func() (*Process, error) {
		return run.Start(Spec{Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ()})
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w watched) await(t *testing.T, what string, ok func(State) bool) State {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		s := w.State()
		if alive := s.Phase == Running || s.Phase == Stopped; alive != (s.Process != nil) {
			t.Fatalf("phase %s with process %v", s.Phase, s.Process)
		}
		if ok(s) {
			return s
		}
		select {
		case <-w.changed:
		case <-deadline:
			t.Fatalf("%s: state %+v", what, w.State())
		}
	}
}

func running(s State) bool { return s.Phase == Running }

func TestKeeperFaults(t *testing.T) {
	w := keep(t, NewRunner(), "exec sleep 1000", nil)
	first := w.await(t, "running", running)
	if err := w.Fault("kill"); err != nil {
		t.Fatal(err)
	}
	held := w.await(t, "held", func(s State) bool { return s.Phase == Held })
	if held.LastCode != 128+int(syscall.SIGKILL) || held.Process != nil {
		t.Errorf("after kill: %+v", held)
	}
	if err := w.Fault("stop"); err == nil {
		t.Error("stopped a process that does not run")
	}
	if err := w.Fault("restart"); err != nil {
		t.Fatal(err)
	}
	second := w.await(t, "running again", running)
	if second.Process == first.Process || second.Restarts != 1 {
		t.Errorf("after restart: %+v", second)
	}
	if err := w.Fault("stop"); err != nil {
		t.Fatal(err)
	}
	if w.State().Phase != Stopped {
		t.Errorf("after stop: %+v", w.State())
	}
	if err := w.Fault("cont"); err != nil {
		t.Fatal(err)
	}
	if err := w.Fault("restart"); err != nil { // a running one, twice in a row: no back-off
		t.Fatal(err)
	}
	w.await(t, "another process", func(s State) bool { return running(s) && s.Process != second.Process })
	if err := w.Fault("freeze"); err == nil {
		t.Error("an unknown fault was accepted")
	}
}

// TestCrash kills the child of what is kept, and nothing else.
func TestCrash(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	w := keep(t, NewRunner(), "sleep 1000 & echo started >"+out+"; wait $!; echo $? >"+out+"; exec sleep 1000", nil)
	first := w.await(t, "running", running)
	awaitText := func(want string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			b, err := os.ReadFile(out)
			if err == nil && strings.TrimSpace(string(b)) == want {
				tick.Stop()
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q, %v, want %q", b, err, want)
			}
		}
	}
	awaitText("started")
	if err := w.Fault("crash"); err != nil {
		t.Fatal(err)
	}
	awaitText("137")
	if s := w.State(); s.Process != first.Process || s.Restarts != 0 {
		t.Errorf("the process itself was touched: %+v", s)
	}
	if err := w.Fault("crash"); err == nil {
		t.Error("a process without children can be crashed")
	}
}

// TestKeeperStateIsConsistent looks at every state that a change announces, through many restarts.
func TestKeeperStateIsConsistent(t *testing.T) {
	bad := make(chan State, 1)
	k := &Keeper{Name: "test"}
	run := NewRunner()
	k.Start = func() (*Process, error) { return run.Start(Spec{Path: "/bin/true"}) }
	starts := 0
	k.Again = func(int) bool { starts++; return starts < 4 }
	k.Changed = func() {
		if s := k.State(); (s.Phase == Running || s.Phase == Stopped) != (s.Process != nil) {
			select {
			case bad <- s:
			default:
			}
		}
	}
	k.Run(t.Context())
	select {
	case s := <-bad:
		t.Errorf("phase %s with process %v", s.Phase, s.Process)
	default:
	}
}

func TestKeeperEnds(t *testing.T) {
	w := keep(t, NewRunner(), "exit 3", func(code int) bool { return code == 0 })
	if s := w.await(t, "ended", func(s State) bool { return s.Phase == Ended }); s.LastCode != 3 || s.Restarts != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestKeeperBacksOff(t *testing.T) {
	w := keep(t, NewRunner(), "exit 1", nil)
	// The first restart comes at once, the second after firstDelay, the third after twice that.
	begun := time.Now()
	w.await(t, "three restarts", func(s State) bool { return s.Restarts >= 4 })
	if took := time.Since(begun); took < firstDelay+2*firstDelay {
		t.Errorf("three restarts within %s", took)
	}
}

func TestOrphansAreReapedAndGroupsKilled(t *testing.T) {
	run := NewRunner()
	out := filepath.Join(t.TempDir(), "child")
	p, err := run.Start(Spec{Path: "/bin/sh", Args: []string{"-c", "sleep 1000 & echo $! >" + out + "; exit 5"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := p.Exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	run.Reap() // nothing of ours may be taken away from its owner
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	status := "/proc/" + strings.TrimSpace(string(raw)) + "/stat"
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		stat, err := os.ReadFile(status)
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return // gone, or dead and waiting for whoever adopted it
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child lives on: %s", stat)
		}
		<-tick.C
	}
}

func TestStartFails(t *testing.T) {
	if _, err := NewRunner().Start(Spec{Path: "/nonexistent"}); err == nil {
		t.Error("no error")
	}
}
