package suite

import (
	"context"
	"slices"
)

// nearTimeout is how long a fleet whose links are good may wait for the answer to a ping: with 200 ms between two of them, a
// router that is frozen is noticed within 1.5 s (docs/decisions/0019).
const nearTimeout = "1200ms"

// nears are faults of a fleet whose links are good and whose hub is told so.
func nears() []Scenario {
	n := &near{}
	return []Scenario{{
		Name: "router-freeze-near", Fault: "router of the serving cluster: SIGSTOP; links are good, and `keepalive.timeout` is " + nearTimeout, Group: "process", Hold: brief,
		// What the client's router is told of an agent that is made then, it is told after the clusters with their new timeout.
		Arrange: []Step{n.shorten, run("{other}", "fresh", 1), answersOver("fresh"), withdraw("{other}", "fresh")},
		Inject:  freezeRouter(), Heal: thawRouter(), After: []Step{n.restore},
	}}
}

func freezeRouter() []Step {
	return append(fault("stop {primary}/envoy"), fault("stop {primary}/relay")...)
}

func thawRouter() []Step {
	return append(fault("cont {primary}/envoy"), fault("cont {primary}/relay")...)
}

// near knows what the hub's arguments were.
type near struct{ before []string }

func (n *near) shorten(ctx context.Context, s *stage) error {
	return s.hubArguments(ctx, func(args []string) []string {
		n.before = args
		return append(slices.Clone(args), "--keepalive-timeout="+nearTimeout)
	})
}

func (n *near) restore(ctx context.Context, s *stage) error {
	if n.before == nil {
		return nil
	}
	return s.hubArguments(ctx, func([]string) []string { return n.before })
}
