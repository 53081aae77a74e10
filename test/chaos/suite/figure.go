package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Figure is a number that is promised of a fault, or that explains one that is. It is measured, never asserted.
type Figure struct {
	Name string `json:"name"`
	What string `json:"what"`
	// Wanted at most; empty promises nothing.
	Wanted string `json:"wanted,omitempty"`
	// Unit of the values: "s", or "requests".
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
}

const (
	unitSeconds  = "s"
	unitRequests = "requests"
)

// Middle is the median of the values, and their range.
func (f Figure) Middle() (median, least, most float64) {
	if len(f.Values) == 0 {
		return 0, 0, 0
	}
	all := slices.Sorted(slices.Values(f.Values))
	return all[len(all)/2], all[0], all[len(all)-1]
}

// Trial is something that happens to the fleet, and the figures that it gives.
type Trial struct {
	Name    string
	Figures []Figure
	run     func(ctx context.Context, t *trying) error
}

// trying is one round of a trial.
type trying struct {
	*stage
	n      int // of the round
	load   *load
	mu     sync.Mutex
	values map[string]float64
}

// took notes a figure; what was there before its start took no time.
func (t *trying) took(figure string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.values[figure] = max(0, d.Seconds())
}

// agent is a name that no round has used before: edges remember none.
func (t *trying) agent(kind string) string { return fmt.Sprintf("%s-%d", kind, t.n) }

// Try runs a trial once, from a settled fleet to a settled fleet, and returns the values by the figures' names.
func (u *Suite) Try(ctx context.Context, trial Trial) (map[string]float64, error) {
	u.n++
	t := &trying{stage: u.stage, n: u.n, values: map[string]float64{}}
	if err := t.settled(ctx); err != nil {
		return nil, fmt.Errorf("%s: before the fault: %w", trial.Name, err)
	}
	err := trial.run(ctx, t)
	if t.load != nil { // a trial that failed on the way
		t.load.stop()
	}
	// Whatever went wrong, the fault goes: others come after this one.
	err = errors.Join(err, t.mend(ctx))
	for _, f := range trial.Figures {
		if _, ok := t.values[f.Name]; !ok && err == nil {
			err = fmt.Errorf("no value of %s", f.Name)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", trial.Name, err)
	}
	return t.values, err
}

// Trials are all of them, in the order of the table.
func Trials() []Trial {
	seconds := func(name, what, wanted string) Figure {
		return Figure{Name: name, What: what, Wanted: wanted, Unit: unitSeconds}
	}
	dead := func(name, how string, unreachable bool) []Trial {
		return []Trial{
			{Name: "restart-" + name, run: func(ctx context.Context, t *trying) error { return t.restarted(ctx, name, unreachable) }, Figures: []Figure{
				seconds("restart-"+name, how+", spoke and router of a cluster restarted at once: first 200 there for an agent in another cluster", "10 s"),
			}},
			{Name: "local-" + name, run: func(ctx context.Context, t *trying) error { return t.localAgents(ctx, name, unreachable) }, Figures: []Figure{
				seconds("new-"+name, how+": a new agent, from its EndpointSlice being ready to the first 200 at its own edge", "1 s"),
				seconds("moved-"+name, how+": an agent that moved here from another cluster, likewise", "1 s"),
				seconds("back-"+name, "then, from the hub's return until another cluster's edge answers for both", ""),
				{Name: "withdrawn-" + name, What: "meanwhile, under load: requests that found a route withdrawn (404)", Wanted: "0", Unit: unitRequests},
				{Name: "failed-" + name, What: "meanwhile, under load: requests that failed in any way", Wanted: "0", Unit: unitRequests},
			}},
		}
	}
	return slices.Concat([]Trial{
		{Name: "leader-of-two", run: func(ctx context.Context, t *trying) error { return t.leaderOfTwo(ctx) }, Figures: []Figure{
			seconds("leader-of-two", "leader of two replicas of the hub killed: an agent declared right then is routable at a third cluster's edge", "5 s"),
			seconds("leader-of-two-writes", "likewise: a Spoke made right then has its namespace, which a leader writes", "5 s"),
		}},
		{Name: "only-replica", run: func(ctx context.Context, t *trying) error { return t.onlyReplica(ctx) }, Figures: []Figure{
			seconds("only-replica", "only replica of the hub killed and started again: the agent is routable", ""),
			seconds("only-replica-writes", "likewise: the Spoke has its namespace", ""),
		}},
	}, dead("dead", "hub dead", false), dead("unreachable", "hub dead, and its API server beyond reach", true), []Trial{
		{Name: "spoke-back", run: func(ctx context.Context, t *trying) error { return t.spokeBack(ctx) }, Figures: []Figure{
			seconds("spoke-back", "a spoke that was removed comes back: its place is used again, from when it is reachable and has renewed its Lease", "2 s"),
			seconds("spoke-back-renewed", "until then: from when its link is there again to the renewal of its Lease", ""),
			seconds("spoke-back-heal", "both: its place is used again, from when its link is there again", ""),
		}},
	})
}
