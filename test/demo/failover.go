package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// tally counts the answers of a stretch of requests.
type tally struct {
	asked, failed int
	by            map[string]int
	slowest       time.Duration
	lastError     string
}

func (t *tally) add(a answer, err error) {
	t.asked++
	switch {
	case err != nil:
		t.failed++
		t.lastError = err.Error()
		return
	case a.status != http.StatusOK:
		t.failed++
		t.lastError = fmt.Sprintf("%d %.200s", a.status, a.body)
		return
	}
	t.by[a.servedBy]++
	t.slowest = max(t.slowest, a.took)
}

// failover takes the pod away that serves simple-agent to eu, under requests, and brings it back.
func (s *show) failover(ctx context.Context) error {
	heading("Failover: simple-agent has a place in us and in ap; the pod that serves eu goes")
	var r resource
	for _, candidate := range s.resources {
		if candidate.name == "simple-agent" {
			r = candidate
		}
	}
	url := s.env.cluster("eu").Edge + r.path() + "/health"
	first, err := until(ctx, s.client, url, r.clusters...)
	if err != nil {
		return err
	}
	other := r.clusters[0]
	if other == first.servedBy {
		other = r.clusters[1]
	}
	note("before: eu is served by %s", first.servedBy)

	t, err := s.askWhile(ctx, url, other, s.pods[first.servedBy+r.path()].stop)
	if err != nil {
		return err
	}
	delete(s.pods, first.servedBy+r.path())
	note("pod in %s stopped: %d requests, %d failed, served by %v, slowest %s", first.servedBy, t.asked, t.failed, t.by, t.slowest.Round(time.Millisecond))
	if t.failed > 0 {
		return fmt.Errorf("failover: %d of %d requests failed, the last with %s", t.failed, t.asked, t.lastError)
	}
	if err := s.run(ctx, s.env.cluster(first.servedBy), r); err != nil {
		return err
	}
	// Its own edge sends requests home as soon as the pod is ready.
	if _, err := until(ctx, s.client, s.env.cluster(first.servedBy).Edge+r.path()+"/health", first.servedBy); err != nil {
		return err
	}
	note("pod in %s back: its own edge serves it at home again", first.servedBy)
	return nil
}

// askWhile sends a request every 20 ms, does something after the fifth, and goes on until ten answers in a row came from
// the cluster wanted.
func (s *show) askWhile(ctx context.Context, url, want string, do func()) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t := tally{by: map[string]int{}}
	done := make(chan struct{})
	begin := sync.OnceFunc(func() {
		go func() {
			do()
			close(done)
		}()
	})
	defer func() {
		begin() // also after an early end: the caller counts on it
		<-done
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for row := 0; row < 10; {
		select {
		case <-ctx.Done():
			return t, fmt.Errorf("%s did not take over: %d requests, %d failed, served by %v %s", want, t.asked, t.failed, t.by, t.lastError)
		case <-tick.C:
		}
		a, err := ask(ctx, s.client, http.MethodGet, url, "")
		t.add(a, err)
		if t.asked == 5 {
			begin()
		}
		row++
		if err != nil || !a.ok(want) {
			row = 0
			continue
		}
		select {
		case <-done:
		default:
			row = 0 // the pod is still going
		}
	}
	return t, nil
}
