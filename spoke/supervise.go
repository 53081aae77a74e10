package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Bounds of Supervisor. A relay that ends at once, the first time, is set up wrongly: the kubelet is to see and show that.
const (
	firstStand = 10 * time.Second
	leastDelay = 100 * time.Millisecond
	mostDelay  = 10 * time.Second
	goodStand  = time.Minute // after which the delays begin anew
)

// Supervisor keeps a process running as its child. The relay has one, so that Envoy beside it outlives its death: a container
// that ends makes its pod unready, and a Service takes a pod that is not ready out, with an Envoy that could serve on.
type Supervisor struct {
	// Command makes the process, told how often it was started again.
	Command func(restarts int) *exec.Cmd
	Log     *slog.Logger

	stands time.Duration // firstStand
	delay  time.Duration // leastDelay
}

// Run returns when the context has ended and the child with it: it is sent SIGTERM and takes the time that it needs. It also
// returns, with an error, when the child cannot be started or ends within 10 s of the first start. Any later end is
// logged, and the child is started again after 0.1 to 10 s.
func (s Supervisor) Run(ctx context.Context) error {
	if s.stands == 0 {
		s.stands, s.delay = firstStand, leastDelay
	}
	// The death of the thread that has started the child is the child's: it must not live on without its supervisor.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	delay := s.delay
	for restarts := 0; ; restarts++ {
		begun := time.Now()
		err := s.once(ctx, restarts)
		stood := time.Since(begun)
		if ctx.Err() != nil || (restarts == 0 && stood < s.stands) {
			return err
		}
		if stood > goodStand {
			delay = s.delay
		}
		s.Log.Error("The relay has ended and is started again; Envoy goes on with what it has", "error", err, "after", stood, "in", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, mostDelay)
	}
}

// once runs the child until it ends.
func (s Supervisor) once(ctx context.Context, restarts int) error {
	cmd := s.Command(restarts)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the relay: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("it ended by itself")
		}
		return err
	case <-ctx.Done():
		// It may have ended just now.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return <-ended
	}
}
