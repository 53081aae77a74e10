package proc

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Phase of what a Keeper keeps.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Running  Phase = "running"
	Stopped  Phase = "stopped" // SIGSTOP
	Waiting  Phase = "waiting" // to be started again, after a back-off
	Held     Phase = "held"    // killed by a fault, down until it is restarted
	Ended    Phase = "ended"
)

// Back-off between restarts: none after the first end, then from firstDelay doubling to maxDelay; a run of goodRun
// starts over. A real kubelet waits from 10 s to 5 min; tests of crash loops would take as long.
const (
	firstDelay = 500 * time.Millisecond
	maxDelay   = 10 * time.Second
	goodRun    = 10 * time.Second
)

// State of a Keeper.
type State struct {
	Phase    Phase
	Process  *Process // not nil exactly when Phase is Running or Stopped
	Restarts int
	Started  time.Time
	LastCode int // exit code of the last run that ended
	LastText string
	LastEnd  time.Time
}

// Keeper keeps one process running until its context ends, and is what faults act on.
type Keeper struct {
	// Name for logs and status.
	Name string
	// Log is the file that takes the process's output.
	Log string
	// Start starts the process.
	Start func() (*Process, error)
	// Again says whether to start again after an exit code; nil means always.
	Again func(code int) bool
	// Changed is told of each change of state; it must not block.
	Changed func()

	mu    sync.Mutex
	state State
	held  bool
	kick  chan struct{}
}

// Run keeps the process until ctx ends, then kills it if it still runs, and returns once it is gone.
func (k *Keeper) Run(ctx context.Context) {
	kick := k.kicks()
	defer k.set(func(s *State) { s.Phase, s.Process = Ended, nil })
	failures := 0
	for {
		if !k.awaitRelease(ctx, kick) {
			return
		}
		k.set(func(s *State) { s.Phase = Starting })
		p, err := k.Start()
		begun := time.Now()
		if err != nil {
			k.set(func(s *State) { s.LastCode, s.LastText, s.LastEnd = 128, err.Error(), time.Now() })
		} else {
			k.set(func(s *State) { s.Phase, s.Process, s.Started = Running, p, begun })
			k.wait(ctx, p)
			code, text := p.Exit()
			k.set(func(s *State) {
				s.Phase, s.Process, s.LastCode, s.LastText, s.LastEnd = Waiting, nil, code, text, time.Now()
			})
			if ctx.Err() != nil || (k.Again != nil && !k.Again(code) && !k.isHeld()) {
				return
			}
		}
		if failures++; time.Since(begun) > goodRun {
			failures = 1
		}
		k.set(func(s *State) { s.Phase, s.Restarts = Waiting, s.Restarts+1 })
		if !k.backOff(ctx, kick, failures) {
			return
		}
	}
}

func (k *Keeper) wait(ctx context.Context, p *Process) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
}

// awaitRelease blocks while a fault holds the process down; false when ctx ended.
func (k *Keeper) awaitRelease(ctx context.Context, kick <-chan struct{}) bool {
	for k.isHeld() {
		k.set(func(s *State) { s.Phase = Held })
		select {
		case <-ctx.Done():
			return false
		case <-kick:
		}
	}
	return ctx.Err() == nil
}

func (k *Keeper) backOff(ctx context.Context, kick <-chan struct{}, failures int) bool {
	if failures <= 1 {
		return ctx.Err() == nil
	}
	delay := firstDelay << min(failures-2, 10)
	timer := time.NewTimer(min(delay, maxDelay))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-kick:
	case <-timer.C:
	}
	return true
}

// State returns the current state.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Fault does one of kill (and keep down), stop, cont, term (SIGTERM; it starts again when it has ended), restart (now, also
// when it was kept down) and crash (SIGKILL to its child processes only, which are its to start again).
func (k *Keeper) Fault(kind string) error {
	kick := k.kicks()
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.state.Process
	if p == nil && (kind == "stop" || kind == "cont" || kind == "term" || kind == "crash") {
		return fmt.Errorf("%s does not run", k.Name)
	}
	switch kind {
	case "kill":
		k.held = true
	case "restart":
		k.held = false
	case "term":
		p.Signal(syscall.SIGTERM)
		return nil
	case "crash":
		return p.killChildren()
	case "stop":
		p.Signal(syscall.SIGSTOP)
		k.state.Phase = Stopped
		return nil
	case "cont":
		p.Signal(syscall.SIGCONT)
		k.state.Phase = Running
		return nil
	default:
		return fmt.Errorf("unknown fault %q: use kill, crash, stop, cont, term or restart", kind)
	}
	if p != nil {
		p.Signal(syscall.SIGKILL)
	}
	if kind == "restart" || p == nil {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
	return nil
}

func (k *Keeper) isHeld() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held
}

func (k *Keeper) kicks() chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kick == nil {
		k.kick = make(chan struct{}, 1)
	}
	return k.kick
}

func (k *Keeper) set(f func(*State)) {
	k.mu.Lock()
	f(&k.state)
	k.mu.Unlock()
	if k.Changed != nil {
		k.Changed()
	}
}
