package lab

import (
	"context"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// Cut says what a partition takes away.
type Cut struct {
	// From and To are "hub" (its API server and gRPC port), the name of a cluster, or "<cluster>:<port>".
	From, To string
	// Link is "control" (to the hub) or "data" (router to router) of two clusters; empty means all.
	Link string
	// OneWay loses only what travels from From to To.
	OneWay bool
}

// Slow says how packets travel between two clusters, beside the lab's RTT.
type Slow = wire.LinkRequest

// Partition cuts a link; cuts add up until Heal. It returns the directions that it acted on.
func (l *Lab) Partition(ctx context.Context, c Cut) ([]string, error) {
	return l.link(ctx, wire.LinkRequest{Kind: "partition", From: c.From, To: c.To, Link: c.Link, OneWay: c.OneWay})
}

// Heal mends the link of two clusters, cuts and delays alike; when both names are empty every link, and every clock.
func (l *Lab) Heal(ctx context.Context, from, to string) ([]string, error) {
	return l.link(ctx, wire.LinkRequest{Kind: "heal", From: from, To: to})
}

// Delay slows the link of two clusters; a second one replaces the first.
func (l *Lab) Delay(ctx context.Context, s Slow) ([]string, error) {
	s.Kind = "delay"
	return l.link(ctx, s)
}

func (l *Lab) link(ctx context.Context, r wire.LinkRequest) ([]string, error) {
	reply, err := l.ask(ctx, wire.Request{Link: &r})
	return reply.Acted, err
}

// Clock gives the processes of a cluster ("<cluster>" or "<cluster>/<process>") the machine's wall clock plus an offset, in whole seconds; 0 is
// the machine's again. Their monotonic clock is not changed. Processes that start later get it too. It returns when it began, and on which it acted.
func (l *Lab) Clock(ctx context.Context, target string, offset time.Duration) (time.Time, []string, error) {
	reply, err := l.ask(ctx, wire.Request{Clock: &wire.ClockRequest{Target: target, Offset: offset}})
	return reply.At, reply.Acted, err
}
