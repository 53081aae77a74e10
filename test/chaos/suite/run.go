package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Common rates, in requests per second, and streams of each kind per agent: little enough for two busy cores.
const (
	commonRate    = 25
	bystanderRate = 10
	streamsEach   = 3
)

// Suite runs scenarios on one fleet.
type Suite struct {
	stage *stage
	// Log takes a line per step.
	Log func(format string, args ...any)
	n   int
}

// New prepares a fleet: agents run in two clusters, and the fleet has settled. Close ends them.
func New(ctx context.Context, f *Fleet, log func(string, ...any)) (*Suite, error) {
	s, err := prepare(ctx, f)
	u := &Suite{stage: s, Log: log}
	if err == nil {
		err = s.settled(ctx)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	log("asked at %s, served by %s, then by %s", s.client.Name, s.primary.Name, s.other.Name)
	return u, nil
}

// Close ends the agents.
func (u *Suite) Close() { u.stage.close() }

// Run runs one scenario once, from a settled fleet to a settled fleet.
func (u *Suite) Run(ctx context.Context, sc Scenario) (Row, error) {
	s := u.stage
	u.n++
	prefix := fmt.Sprintf("%s-%d", sc.Name, u.n)
	row := Row{Scenario: sc.Name}
	if err := errors.Join(steps(ctx, s, sc.Arrange), s.settled(ctx), s.await(ctx, "those that stop", s.fleet.nobodyStops)); err != nil {
		return row, fmt.Errorf("%s: before the fault: %w", sc.Name, err)
	}
	name := cmp.Or(sc.Load, twin)
	if sc.Load != "" && !sc.Attempts {
		if err := s.await(ctx, name+" at "+s.client.Name, func(ctx context.Context) error { return s.served(ctx, s.client, name, s.primary.Name) }); err != nil {
			return row, err
		}
	}
	open, err := openStreams(ctx, streamsEach, s.client.Edge+s.path(twin), s.client.Edge+s.path(far))
	if err != nil {
		return row, fmt.Errorf("%s: streams: %w", sc.Name, err)
	}
	rate, loaded, bystander := cmp.Or(sc.Rate, commonRate), s.path(name), s.path(far)
	l := startLoad(ctx,
		target{http.MethodGet, s.client.Edge + loaded + "/echo" + sc.Query, loaded, prefix + "-get", rate},
		target{http.MethodPost, s.client.Edge + loaded + "/echo" + sc.Query, loaded, prefix + "-post", rate},
		target{http.MethodGet, s.client.Edge + bystander + "/echo", bystander, prefix + "-far", bystanderRate})
	row.Streams = open.opened
	injected, err := u.breakAndMend(ctx, sc, &row)
	results := l.stop()
	resets, why := open.stop()
	row.count(results, loaded, injected)
	for by, n := range resets {
		if by == s.primary.Name {
			row.StreamsReset += n
		} else {
			row.OtherStreamsReset += n
		}
		row.Example = cmp.Or(row.Example, "stream of "+by+": "+why[by])
	}
	err = errors.Join(err, u.executions(&row, name, prefix))
	for _, step := range sc.After {
		err = errors.Join(err, step(ctx, s))
	}
	if len(sc.After) > 0 {
		err = errors.Join(err, s.settled(ctx))
	}
	return row, err
}

// lead is how long the load runs before a fault and after the fleet is as before: a dozen requests of each kind.
const lead = 500 * time.Millisecond

// breakAndMend lets the fault come and go.
func (u *Suite) breakAndMend(ctx context.Context, sc Scenario, row *Row) (injected time.Time, err error) {
	s := u.stage
	pause(ctx, lead)
	injected, s.injected = time.Now(), time.Time{}
	err = steps(ctx, s, sc.Inject)
	if !s.injected.IsZero() {
		injected = s.injected
	}
	pause(ctx, sc.Hold)
	healed := time.Now()
	// Whatever went wrong, the fault goes: others come after this one.
	for _, step := range sc.Heal {
		err = errors.Join(err, step(ctx, s))
	}
	err = errors.Join(err, s.settled(ctx))
	row.Recovery = time.Since(healed)
	pause(ctx, lead)
	if err != nil {
		err = fmt.Errorf("%s: %w", sc.Name, err)
	}
	return injected, err
}

// executions reads what the pods have seen.
func (u *Suite) executions(row *Row, name, prefix string) error {
	path := u.stage.fleet.journal(name)
	posts, err := entries(path, prefix+"-post", http.MethodPost)
	if err != nil {
		return err
	}
	row.Duplicated = repeated(posts)
	gets, err := entries(path, prefix+"-get", http.MethodGet)
	if err != nil {
		return err
	}
	seen := 0
	for _, keys := range []map[string]int{posts, gets} {
		for _, n := range keys {
			seen += n
		}
	}
	if n := len(posts) + len(gets); n > 0 {
		row.Attempts = float64(seen) / float64(n)
	}
	return nil
}

func steps(ctx context.Context, s *stage, all []Step) error {
	for _, step := range all {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// MaxAttempts bounds how often a request may be tried when every pod refuses.
const MaxAttempts = 1.25

// Broken lists the invariants that a row breaks. None of them is about time.
func (sc Scenario) Broken(r Row) []string {
	var out []string
	say := func(bad bool, format string, args ...any) {
		if bad {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(r.GETs == 0 || r.POSTs == 0, "no load: %d GETs, %d POSTs", r.GETs, r.POSTs)
	say(r.Duplicated > 0, "%d POSTs executed twice", r.Duplicated)
	say(r.Withdrawn > 0, "%d requests found the route withdrawn", r.Withdrawn)
	say(!sc.Everywhere && r.FailedBystanders > 0, "%d requests of bystanders failed", r.FailedBystanders)
	say(!sc.Everywhere && r.OtherStreamsReset > 0, "%d streams of bystanders reset", r.OtherStreamsReset)
	say(sc.Retried && r.FailedGETs > 0, "%d GETs failed", r.FailedGETs)
	say(sc.Harmless && r.FailedGETs+r.FailedPOSTs > 0, "%d GETs and %d POSTs failed", r.FailedGETs, r.FailedPOSTs)
	say(sc.Harmless && r.StreamsReset > 0, "%d streams reset", r.StreamsReset)
	say(sc.Attempts && r.Attempts > MaxAttempts, "%.2f attempts a request", r.Attempts)
	return out
}
