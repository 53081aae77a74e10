package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/daemon"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// downTimeout is how long a daemon may take to end by itself.
const downTimeout = 15 * time.Second

// Down ends the lab and removes its directory. A lab that does not run, or does not answer, is removed all the same.
func (l *Lab) Down(ctx context.Context) error {
	if _, err := os.Stat(l.dir); os.IsNotExist(err) {
		return nil
	}
	pid, _ := l.daemonPID()
	asking, cancel := context.WithTimeout(ctx, downTimeout)
	_, err := l.ask(asking, wire.Request{Down: &struct{}{}})
	cancel()
	deadline := time.Now().Add(downTimeout)
	if err != nil {
		deadline = time.Now()
	}
	for {
		lock, err := l.lock()
		if err == nil {
			defer lock.Close()
			return os.RemoveAll(l.dir)
		}
		if time.Now().After(deadline) {
			if pid == 0 {
				return fmt.Errorf("lab %q is starting, or does not answer and cannot be found: %w", l.Name, err)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
			deadline = time.Now().Add(downTimeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Down ends the lab of a name, running or not.
func Down(ctx context.Context, name string) error {
	name = cmp.Or(name, daemon.DefaultName)
	return (&Lab{Name: name, dir: daemon.DirOf(name)}).Down(ctx)
}
