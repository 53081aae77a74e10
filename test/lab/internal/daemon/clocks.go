package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wallclock"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// clockLook is how often processes that have started since are looked for while a clock is not the machine's.
const clockLook = 25 * time.Millisecond

// clocks holds which processes have another wall clock than the machine's.
type clocks struct {
	log   *slog.Logger
	begun chan struct{} // closed at the first change

	mu      sync.Mutex
	changed bool
	rules   []clockRule // a later one wins
	given   map[int]clockOf
}

// clockRule is what was asked for.
type clockRule struct {
	cluster, process string // no process: all of the cluster
	offset           time.Duration
}

// clockOf is the clock that the program of a process was given.
type clockOf struct {
	program uint64
	offset  time.Duration
}

func newClocks(log *slog.Logger) *clocks {
	return &clocks{log: log, begun: make(chan struct{}), given: map[int]clockOf{}}
}

// clock does a request.
func (d *Daemon) clock(ctx context.Context, r wire.ClockRequest) (time.Time, []string, error) {
	if err := errors.Join(wallclock.Validate(r.Offset), wallclock.Supported()); err != nil {
		return time.Time{}, nil, err
	}
	meant, err := d.meant(ctx, r.Target)
	if err != nil {
		return time.Time{}, nil, err
	}
	cluster, process, _ := strings.Cut(r.Target, "/")
	if process == "hub-leader" {
		process = meant[0].pod // it keeps its clock when another leads
	}
	at := time.Now()
	acted, err := d.clocks.set(clockRule{cluster, process, r.Offset}, d.everything())
	return at, acted, err
}

// link does a request for links; the one that heals everything sets the clocks right, too.
func (d *Daemon) link(r wire.LinkRequest) ([]string, error) {
	if r.Kind != "heal" || r.From != "" || r.To != "" {
		return d.links.do(r)
	}
	acted, err := d.clocks.heal(d.everything())
	if err != nil || d.links.set == nil && len(acted) > 0 {
		return acted, err
	}
	healed, err := d.links.do(r)
	return append(acted, healed...), err
}

// set takes a rule over and returns the processes whose clock it changed.
func (c *clocks) set(r clockRule, all []kept) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = slices.DeleteFunc(c.rules, func(old clockRule) bool {
		return old.cluster == r.cluster && (r.process == "" || old.process == r.process)
	})
	if c.rules = append(c.rules, r); !c.changed {
		c.changed = true
		close(c.begun)
	}
	return c.apply(all)
}

// heal gives every process the machine's clock.
func (c *clocks) heal(all []kept) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = nil
	return c.apply(all)
}

// of is what the clock of a process is to be.
func (c *clocks) of(k kept) time.Duration {
	for _, r := range slices.Backward(c.rules) {
		if r.cluster == k.cluster && (r.process == "" || k.named(r.process)) {
			return r.offset
		}
	}
	return 0
}

// apply gives every process, and what it has started, the clock that it is to have. One that cannot be given it does not keep the others
// from theirs.
func (c *clocks) apply(all []kept) (acted []string, err error) {
	tree, err := proc.Tree()
	if err != nil {
		return nil, err
	}
	now := map[int]clockOf{}
	var errs []error
	for _, k := range all {
		p := k.keeper.State().Process
		if p == nil {
			continue
		}
		changed := false
		for _, pid := range tree.Of(p.PID()) {
			was, want := c.given[pid], clockOf{wallclock.Program(pid), c.of(k)}
			if want.program == 0 {
				continue // ended, or about to be another program
			}
			if was == want || want.offset == 0 && was.program != want.program { // a new program has the machine's
				now[pid] = want
				continue
			}
			switch err := wallclock.Set(pid, want.offset); {
			case err == nil:
				now[pid], changed = want, true
			case !errors.Is(err, wallclock.ErrEnded):
				now[pid] = was
				errs = append(errs, fmt.Errorf("clock of %s/%s: %w", k.cluster, k.name, err))
			}
		}
		if changed {
			acted = append(acted, k.cluster+"/"+k.name)
		}
	}
	c.given = now
	return acted, errors.Join(errs...)
}

// follow gives the processes that start later their clock, until ctx ends.
func (c *clocks) follow(ctx context.Context, all func() []kept) {
	select {
	case <-ctx.Done():
		return
	case <-c.begun:
	}
	tick := time.NewTicker(clockLook)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if text := c.look(all()); text != failed {
			if failed = text; text != "" {
				c.log.Error("a process that has started does not have its cluster's clock", "error", text)
			}
		}
	}
}

// look is one pass of follow; it returns what went wrong.
func (c *clocks) look(all []kept) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.ContainsFunc(c.rules, func(r clockRule) bool { return r.offset != 0 }) {
		return ""
	}
	if _, err := c.apply(all); err != nil {
		return err.Error()
	}
	return ""
}
