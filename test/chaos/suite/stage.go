package suite

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Agents that all scenarios share: twin runs in primary and other, far in other only.
const (
	twin = "twin"
	far  = "far"
)

// stage is where scenarios run: a namespace with agents, and who plays which part.
type stage struct {
	fleet                  *Fleet
	ns                     string
	client, primary, other *Cluster
	http                   *http.Client
	agents                 map[string]*Agent // by cluster/name
	injected               time.Time         // when the lab did the first fault of the scenario
}

// prepare runs the shared agents and finds out who serves whom.
func prepare(ctx context.Context, f *Fleet) (*stage, error) {
	s := &stage{fleet: f, ns: fmt.Sprintf("chaos-%d", time.Now().UnixNano()%1_000_000), http: &http.Client{Timeout: 5 * time.Second}, agents: map[string]*Agent{}}
	for _, c := range f.Clusters { // a client beside the hub would have no control link to cut
		if c.Name != f.Hub.Name && s.client == nil {
			s.client = c
		}
	}
	var places []*Cluster
	for _, c := range f.Clusters {
		if c != s.client && len(places) < 2 {
			places = append(places, c)
			if err := s.run(ctx, c, twin, 1); err != nil {
				return s, err
			}
		}
	}
	s.primary, s.other = places[0], places[1]
	for _, c := range places {
		if err := s.await(ctx, "the agent in "+c.Name, func(ctx context.Context) error { return s.served(ctx, c, twin, c.Name) }); err != nil {
			return s, err
		}
	}
	by, err := s.nearest(ctx)
	if err != nil {
		return s, err
	}
	if by == s.other.Name {
		s.primary, s.other = s.other, s.primary
	}
	return s, s.run(ctx, s.other, far, 1)
}

// nearest is the cluster that answers the client for twin once both places are known: the one that was known first
// answers until then, whichever it is.
func (s *stage) nearest(ctx context.Context) (string, error) {
	for _, role := range []string{"{primary}", "{other}"} {
		if err := hasPlace(twin, role)(ctx, s); err != nil {
			return "", err
		}
	}
	by, since := "", time.Now()
	err := s.await(ctx, "the same answers at "+s.client.Name, func(ctx context.Context) error {
		got, err := s.ask(ctx, s.client, twin)
		if err != nil || got != by {
			by, since = got, time.Now()
		}
		if err == nil && time.Since(since) < answersAlike {
			err = fmt.Errorf("%s answers", got)
		}
		return err
	})
	return by, err
}

func (s *stage) close() {
	for _, a := range s.agents {
		a.Stop()
	}
}

func (s *stage) expand(text string) string {
	return strings.NewReplacer("{client}", s.client.Name, "{primary}", s.primary.Name, "{other}", s.other.Name, "{hub}", s.fleet.Hub.Name).Replace(text)
}

func (s *stage) run(ctx context.Context, c *Cluster, name string, replicas int, args ...string) error {
	key := c.Name + "/" + name
	if s.agents[key] != nil {
		return nil
	}
	a, err := s.fleet.Run(ctx, c, s.ns, name, replicas, args...)
	if err == nil {
		s.agents[key] = a
	}
	return err
}

func (s *stage) path(name string) string { return "/" + s.ns + "/agent/" + name }

// ask returns which cluster answers for an agent at an edge.
func (s *stage) ask(ctx context.Context, at *Cluster, name string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.Edge+s.path(name)+"/health", nil)
	if err != nil {
		return "", err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s at %s: %d %s", name, at.Name, resp.StatusCode, text)
	}
	return resp.Header.Get("x-isthmus-served-by"), err
}

func (s *stage) served(ctx context.Context, at *Cluster, name, by string) error {
	got, err := s.ask(ctx, at, name)
	if err == nil && got != by {
		err = fmt.Errorf("%s at %s is served by %s, not %s", name, at.Name, got, by)
	}
	return err
}

// answersAlike is how long a router has to hear of a place that the hub knows.
const answersAlike = 3 * time.Second

// settleTimeout bounds a fleet that does not come back; it asserts nothing about how fast one does.
const settleTimeout = 2 * time.Minute

func (s *stage) await(ctx context.Context, what string, check func(context.Context) error) error {
	return s.awaitFor(ctx, settleTimeout, what, check)
}

func (s *stage) awaitFor(ctx context.Context, most time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // that the time is over is no news
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, most, last)
		case <-tick.C:
		}
	}
}

// settled waits until the fleet is as it was before any fault.
func (s *stage) settled(ctx context.Context) error {
	return s.await(ctx, "the fleet as before", func(ctx context.Context) error {
		for _, w := range []struct {
			at *Cluster
			of string
			by *Cluster
		}{{s.client, twin, s.primary}, {s.other, twin, s.other}, {s.primary, twin, s.primary}, {s.client, far, s.other}, {s.primary, far, s.other}} {
			if err := s.served(ctx, w.at, w.of, w.by.Name); err != nil {
				return err
			}
		}
		return s.fleet.spokesAvailable(ctx)
	})
}
