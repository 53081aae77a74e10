package suite

import (
	"context"
	"errors"
	"fmt"
)

// ShortHold is how long a fault lasts in the short form, unless it needs more to be noticed at all.
const ShortHold = 2 * brief / 5

// Cuts is one cell of the partition matrix: A is the client's cluster, B the other one; the hub lives in the third.
type Cuts struct {
	Name string
	cut  []Step
	// ab: the data path between A and B is cut, so that neither serves the other.
	ab bool
}

// Matrix cuts each of the three links hub-A, hub-B and A-B alone, and in pairs. A link to the hub is the control link:
// routers keep their path to the hub's cluster.
func Matrix() []Cuts {
	hubA, hubB, ab := "partition {client} hub", "partition {other} hub", "partition {client} {other}"
	both := func(a, b string) []Step { return append(fault(a), fault(b)...) }
	return []Cuts{
		{Name: "hub-A", cut: fault(hubA)},
		{Name: "hub-B", cut: fault(hubB)},
		{Name: "A-B", cut: fault(ab), ab: true},
		{Name: "hub-A and hub-B", cut: both(hubA, hubB)},
		{Name: "hub-A and A-B", cut: both(hubA, ab), ab: true},
		{Name: "hub-B and A-B", cut: both(hubB, ab), ab: true},
	}
}

// want is who answers for an agent at an edge; unreachable when nobody can.
type want struct {
	at    *Cluster
	agent string
	by    string
}

const unreachable = ""

// table is the expected route table under a partition: twin has its places in primary and other, far in other only.
func (s *stage) table(ab bool) []want {
	t := []want{
		{s.client, twin, s.primary.Name}, // by the path to the hub's cluster, which no cell cuts
		{s.primary, twin, s.primary.Name},
		{s.other, twin, s.other.Name},
		{s.primary, far, s.other.Name},
		{s.other, far, s.other.Name},
		{s.client, far, s.other.Name},
	}
	if ab {
		t[5].by = unreachable
	}
	return t
}

// Partition cuts links, compares every edge's answers with the expected route table, and then, healed, waits for the fleet
// as it was.
func (u *Suite) Partition(ctx context.Context, p Cuts) error {
	s := u.stage
	if s.primary.Name != s.fleet.Hub.Name {
		return fmt.Errorf("the hub is in %s and %s serves: the matrix needs the hub in the serving cluster", s.fleet.Hub.Name, s.primary.Name)
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	err := steps(ctx, s, p.cut)
	if err == nil {
		err = s.await(ctx, "the expected route table", func(ctx context.Context) error { return s.compare(ctx, s.table(p.ab)) })
	}
	if err == nil { // and it stays so
		for range 5 {
			err = errors.Join(err, s.compare(ctx, s.table(p.ab)))
		}
	}
	return errors.Join(err, steps(ctx, s, heal), s.settled(ctx))
}

func (s *stage) compare(ctx context.Context, table []want) error {
	var errs []error
	for _, w := range table {
		got, err := s.ask(ctx, w.at, w.agent)
		switch {
		case w.by == unreachable && err == nil:
			errs = append(errs, fmt.Errorf("%s at %s is served by %s although nobody can be reached", w.agent, w.at.Name, got))
		case w.by != unreachable && err != nil:
			errs = append(errs, err)
		case w.by != got && w.by != unreachable:
			errs = append(errs, fmt.Errorf("%s at %s is served by %s, not %s", w.agent, w.at.Name, got, w.by))
		}
	}
	return errors.Join(errs...)
}
