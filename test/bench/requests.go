package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// requests of one target: latencies of a closed loop.
type requests struct {
	p50, p99 time.Duration
	rps      float64
	cpu      time.Duration // of all routers, per request
}

// load runs a closed loop of n clients against a URL for a while.
func (b *bench) load(ctx context.Context, url string, clients int, d time.Duration) (requests, error) {
	hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients, MaxConnsPerHost: clients}}
	defer hc.CloseIdleConnections()
	before, err := b.cpuOf("envoy")
	if err != nil {
		return requests{}, err
	}
	start := time.Now()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		all      durations
		firstErr error
	)
	for range clients {
		wg.Go(func() {
			var own durations
			var failed error
			for failed == nil && time.Since(start) < d && ctx.Err() == nil {
				t := time.Now()
				code, err := status(ctx, hc, url)
				if err == nil && code != http.StatusOK {
					err = fmt.Errorf("%s answers %d", url, code)
				}
				failed = err
				own = append(own, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
			if failed != nil {
				firstErr = failed
			}
		})
	}
	wg.Wait()
	if firstErr != nil {
		return requests{}, firstErr
	}
	took := time.Since(start)
	after, err := b.cpuOf("envoy")
	if err != nil {
		return requests{}, err
	}
	return requests{p50: all.p(50), p99: all.p(99), rps: float64(len(all)) / took.Seconds(), cpu: (after - before) / time.Duration(max(len(all), 1))}, nil
}
