package spoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

const childEnv = "ISTHMUS_TEST_CHILD"

// TestSupervisedChild is the child, and nothing when no supervisor runs it: it says its PID on a pipe and waits for SIGTERM.
func TestSupervisedChild(*testing.T) {
	switch os.Getenv(childEnv) {
	case "":
		return
	case "bad":
		os.Exit(3)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	_, _ = fmt.Fprintln(os.NewFile(3, "pids"), os.Getpid())
	<-term
	os.Exit(0)
}

func supervised(kind string, pids *os.File, restarts *[]int) Supervisor {
	return Supervisor{Log: slog.New(slog.DiscardHandler), stands: time.Nanosecond, delay: time.Millisecond, Command: func(n int) *exec.Cmd {
		if restarts != nil {
			*restarts = append(*restarts, n)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestSupervisedChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+kind)
		cmd.ExtraFiles = []*os.File{pids}
		return cmd
	}}
}

func TestSupervisorStartsAgainWhatDies(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var restarts []int
	go func() { done <- supervised("good", write, &restarts).Run(ctx) }()
	seen := map[int]bool{}
	for range 3 {
		var pid int
		if _, err := fmt.Fscanln(read, &pid); err != nil {
			t.Fatal(err)
		}
		seen[pid] = true
		if len(seen) < 3 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel() // the last one is told, and ends in order
	if err := <-done; err != nil {
		t.Errorf("the last child: %v", err)
	}
	if len(seen) != 3 || fmt.Sprint(restarts) != "[0 1 2]" {
		t.Errorf("children %v, told %v", seen, restarts)
	}
	// Nobody else has the pipe open: no child is left.
	_ = write.Close()
	if rest, err := io.ReadAll(read); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestSupervisorShowsWhatIsSetUpWrongly(t *testing.T) {
	s := supervised("bad", os.Stderr, nil)
	s.stands = time.Hour
	var exit *exec.ExitError
	if err := s.Run(t.Context()); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%v, want the child's exit code", err)
	}
	s.Command = func(int) *exec.Cmd { return exec.Command("/nowhere") }
	if err := s.Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want that there is no such program", err)
	}
}
