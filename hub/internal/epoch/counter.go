package epoch

import (
	"context"
	"time"
)

// Counter counts marks. Run it on the leader, one at a time.
type Counter struct {
	k    *Keeper
	line string // of this term; "": a new one begins
}

// Counter of the store.
func (k *Keeper) Counter() *Counter { return &Counter{k: k} }

// NeedLeaderElection is true: one counts.
func (c *Counter) NeedLeaderElection() bool { return true }

// Start counts until ctx ends.
func (c *Counter) Start(ctx context.Context) error {
	c.line = ""
	tick := time.NewTicker(c.k.o.Interval)
	defer tick.Stop()
	for {
		if err := c.count(ctx); err != nil && ctx.Err() == nil && !raced(err) {
			c.k.o.Log.Warn("The store's next mark could not be written, will try again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// count writes the next mark. A write of which nobody knows whether it was done ends the line: what it counted may have been told, and
// must not be counted again.
func (c *Counter) count(ctx context.Context) error {
	cm, err := c.k.look(ctx)
	if err != nil {
		c.line = ""
		return err
	}
	next, err := parse(cm) // and not what this replica knows by now, which may be of another read
	if err != nil {
		c.line = ""
		return err
	}
	newest, ok := next.history.Newest()
	if c.line != "" && ok && newest.Line == c.line {
		next.history = next.history.Advance()
	} else {
		c.line = newLine()
		next.history = next.history.Begin(c.line)
	}
	next.write(cm)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.k.o.Client.Update(ctx, cm); err != nil {
		c.line = ""
		return err
	}
	return c.k.take(ctx, next.uid, next)
}
