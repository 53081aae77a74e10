package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	gatewayName      = "bench"
	gatewayNamespace = "isthmus-gateways" // in the clusters
	revision         = "x-revision"
)

// gatewayBench measures the way of a route from the hub to the clusters' Gateways.
type gatewayBench struct {
	*bench
	clusters []cluster
	clients  []*http.Client // by cluster: each keeps one connection
	rev      int
}

// gatewayRow is what was measured with a number of routes there.
type gatewayRow struct {
	routes      int
	hub, direct durations
	writes      counts // of the hub, by what, over all changes of the hub row
	idle        counts // over a pass with nothing to write
	memory      map[string]int
}

// runGateways measures with one route and then with many, and what a storm of changes does to a route that does not change.
func runGateways(ctx context.Context, o options) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	g := &gatewayBench{bench: b, clusters: b.fleet.all, clients: connections(len(b.fleet.all))}
	if err := g.begin(ctx); err != nil {
		return err
	}
	step := progress()
	step("changing one route")
	few, err := g.measure(ctx, 1)
	if err != nil {
		return err
	}
	step(fmt.Sprintf("making %d routes", o.routes))
	made, err := g.addRoutes(ctx, o.routes)
	if err != nil {
		return err
	}
	step("changing one of them")
	many, err := g.measure(ctx, o.routes)
	if err != nil {
		return err
	}
	step(fmt.Sprintf("changing %d", o.stormChanges))
	s, err := g.storm(ctx)
	if err != nil {
		return err
	}
	step("done")
	return o.publish(reportGateways(o, made, s, few, many))
}

// progress tells on standard error what is measured now, with the time since the beginning.
func progress() func(what string) {
	start := time.Now()
	return func(what string) { fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(start).Seconds(), what) }
}

// connections are n clients, each with one connection.
func connections(n int) (out []*http.Client) {
	for range n {
		out = append(out, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}})
	}
	return out
}

// begin makes the hub's Gateway, the route that is changed on the hub, and the same route in every cluster, made there.
func (g *gatewayBench) begin(ctx context.Context) error {
	if err := ensureNamespace(ctx, g.fleet.hub, benchNamespace); err != nil {
		return err
	}
	gw := gatewayObject("Gateway", benchNamespace, gatewayName)
	gw.Object["spec"] = map[string]any{"gatewayClassName": "isthmus", "listeners": []any{map[string]any{"name": "web", "port": int64(80), "protocol": "HTTP"}}}
	if err := g.fleet.hub.Create(ctx, gw); err != nil {
		return err
	}
	if err := g.fleet.hub.Create(ctx, g.hubRoute("changed", "changed.example.com")); err != nil {
		return err
	}
	if err := g.fleet.hub.Create(ctx, g.hubRoute("still", "still.example.com")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for i := range g.clusters {
		if err := g.until(ctx, i, "still.example.com", ""); err != nil {
			return err
		}
	}
	for i, c := range g.clusters {
		var all unstructured.UnstructuredList
		all.SetAPIVersion("gateway.networking.k8s.io/v1")
		all.SetKind("GatewayList")
		if err := c.client.List(ctx, &all, client.InNamespace(gatewayNamespace)); err != nil {
			return err
		}
		if len(all.Items) != 1 {
			return fmt.Errorf("%s has %d Gateways, want the one of the bench", c.Name, len(all.Items))
		}
		if err := c.client.Create(ctx, directRoute(all.Items[0].GetName(), g.fleet.from.Name)); err != nil {
			return err
		}
		if err := g.until(ctx, i, "direct.example.com", ""); err != nil {
			return err
		}
	}
	return nil
}

func gatewayObject(kind, ns, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion("gateway.networking.k8s.io/v1")
	u.SetKind(kind)
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

// revised is a filter that tells a client which revision of a route answered.
func revised(rev int) map[string]any {
	return map[string]any{"type": "ResponseHeaderModifier", "responseHeaderModifier": map[string]any{"set": []any{map[string]any{"name": revision, "value": fmt.Sprint(rev)}}}}
}

func (g *gatewayBench) hubRules(rev int) []any {
	return []any{map[string]any{"filters": []any{revised(rev)}, "backendRefs": []any{map[string]any{"group": "kaos.tools", "kind": "Agent", "name": backend + g.fleet.from.Name}}}}
}

func (g *gatewayBench) hubRoute(name, host string) *unstructured.Unstructured {
	u := gatewayObject("HTTPRoute", benchNamespace, name)
	u.Object["spec"] = map[string]any{"parentRefs": []any{map[string]any{"name": gatewayName}}, "hostnames": []any{host}, "rules": g.hubRules(0)}
	return u
}

// directRules are as the applier would write them.
func directRules(agentCluster string, rev int) []any {
	return []any{map[string]any{
		"filters": []any{revised(rev), map[string]any{"type": "RequestHeaderModifier", "requestHeaderModifier": map[string]any{"set": []any{
			map[string]any{"name": "x-isthmus-target", "value": "/" + benchNamespace + "/agent/" + backend + agentCluster}}}}},
		"backendRefs": []any{map[string]any{"name": "isthmus-router", "port": int64(8081)}}, "timeouts": map[string]any{"request": "0s"},
	}}
}

func directRoute(gateway, agentCluster string) *unstructured.Unstructured {
	u := gatewayObject("HTTPRoute", gatewayNamespace, "bench-direct")
	u.Object["spec"] = map[string]any{
		"parentRefs": []any{map[string]any{"name": gateway}}, "hostnames": []any{"direct.example.com"}, "rules": directRules(agentCluster, 0),
	}
	return u
}

// until asks a cluster's Gateway every millisecond until it answers 200, with a revision of the route if one is given.
func (g *gatewayBench) until(ctx context.Context, i int, host, rev string) error {
	return g.untilBy(ctx, g.clients[i], i, host, rev)
}

func (g *gatewayBench) untilBy(ctx context.Context, hc *http.Client, i int, host, rev string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		code, got, err := ask(ctx, hc, g.clusters[i].Gateway+"/health", host)
		if err == nil && code == http.StatusOK && (rev == "" || got == rev) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s at %s: %d, revision %q, want %q: %w", host, g.clusters[i].Name, code, got, rev, ctx.Err())
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, hc *http.Client, url, host string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	resp, err := hc.Do(req)
	if err != nil {
		return 0, "", err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get(revision), nil
}

// everywhere waits until all clusters answer with a revision; they are asked at once, each by its client.
func (g *gatewayBench) everywhere(ctx context.Context, clients []*http.Client, patience time.Duration, host string, rev int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for i := range g.clusters {
		group.Go(func() error { return g.untilBy(ctx, clients[i], i, host, fmt.Sprint(rev)) })
	}
	return group.Wait()
}

// measure changes the hub's route, and in turn the clusters' own, and waits each time until all three Gateways answer by it.
func (g *gatewayBench) measure(ctx context.Context, routes int) (gatewayRow, error) {
	row := gatewayRow{routes: routes, writes: counts{}}
	for range g.opts.gatewayChanges {
		before, err := g.writes(ctx)
		if err != nil {
			return row, err
		}
		g.rev++
		start := time.Now()
		if err := g.patch(ctx, g.fleet.hub, benchNamespace, "changed", g.hubRules(g.rev)); err != nil {
			return row, err
		}
		if err := g.everywhere(ctx, g.clients, 3*time.Minute, "changed.example.com", g.rev); err != nil {
			return row, err
		}
		row.hub = append(row.hub, time.Since(start))
		if err := g.quiet(ctx); err != nil { // the statuses that follow belong to this change
			return row, err
		}
		after, err := g.writes(ctx)
		if err != nil {
			return row, err
		}
		row.writes.add(after.minus(before))
		start = time.Now()
		group, gctx := errgroup.WithContext(ctx)
		for _, c := range g.clusters {
			group.Go(func() error {
				return g.patch(gctx, c.client, gatewayNamespace, "bench-direct", directRules(g.fleet.from.Name, g.rev))
			})
		}
		if err := group.Wait(); err != nil {
			return row, err
		}
		if err := g.everywhere(ctx, g.clients, 3*time.Minute, "direct.example.com", g.rev); err != nil {
			return row, err
		}
		row.direct = append(row.direct, time.Since(start))
	}
	var err error
	if row.idle, err = g.idlePass(ctx); err != nil {
		return row, err
	}
	row.memory, err = g.memory()
	return row, err
}

func (g *gatewayBench) patch(ctx context.Context, c client.Client, ns, name string, rules []any) error {
	body, err := (&unstructured.Unstructured{Object: map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": map[string]any{"rules": rules}}}).MarshalJSON()
	if err != nil {
		return err
	}
	return c.Patch(ctx, gatewayObject("HTTPRoute", ns, name), client.RawPatch(types.MergePatchType, body))
}

// made tells how many routes at once came into force.
type made struct {
	created, applied, served time.Duration // since the first create
	writes                   counts
}

// addRoutes makes n routes on the hub, 16 at a time, and waits until all are in force in all clusters.
func (g *gatewayBench) addRoutes(ctx context.Context, n int) (made, error) {
	var m made
	before, err := g.writes(ctx)
	if err != nil {
		return m, err
	}
	start := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error { return g.fleet.hub.Create(gctx, g.hubRoute(routeName(i), routeHost(i))) })
	}
	if err := group.Wait(); err != nil {
		return m, err
	}
	m.created = time.Since(start)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := g.untilApplied(ctx, n); err != nil {
		return m, err
	}
	m.applied = time.Since(start)
	for i := range g.clusters {
		for _, r := range []int{0, n / 2, n - 1} {
			if err := g.until(ctx, i, routeHost(r), ""); err != nil {
				return m, err
			}
		}
	}
	m.served = time.Since(start)
	if err := g.quiet(ctx); err != nil {
		return m, err
	}
	after, err := g.writes(ctx)
	m.writes = after.minus(before)
	return m, err
}

func routeName(i int) string { return fmt.Sprintf("route-%d", i) }
func routeHost(i int) string { return fmt.Sprintf("route-%d.example.com", i) }

// stormed is what a route that did not change answered while others did.
type stormed struct {
	changes  int
	took     time.Duration
	requests int64
	failed   map[int]int64 // by status; 0: no answer
	p50, p99 time.Duration
}

// storm changes other routes, round and round, and asks for one that does not change at every cluster's Gateway.
func (g *gatewayBench) storm(ctx context.Context) (stormed, error) {
	s := stormed{changes: g.opts.stormChanges, failed: map[int]int64{}}
	var (
		mu   sync.Mutex
		all  durations
		wg   sync.WaitGroup
		over atomic.Bool
	)
	for i := range g.clusters {
		wg.Go(func() {
			for !over.Load() && ctx.Err() == nil {
				t := time.Now()
				code, _, err := ask(ctx, g.clients[i], g.clusters[i].Gateway+"/health", "still.example.com")
				if err != nil {
					code = 0
				}
				mu.Lock()
				s.requests++
				all = append(all, time.Since(t))
				if code != http.StatusOK {
					s.failed[code]++
				}
				mu.Unlock()
			}
		})
	}
	start := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range s.changes {
		group.Go(func() error {
			return g.patch(gctx, g.fleet.hub, benchNamespace, routeName(i%g.opts.routes), g.hubRules(i+1))
		})
	}
	err := group.Wait()
	if err == nil { // the last change is in force: so are all before it
		last := s.changes - 1
		err = g.everywhere(ctx, connections(len(g.clusters)), 30*time.Minute, routeHost(last%g.opts.routes), last+1)
	}
	s.took = time.Since(start)
	over.Store(true)
	wg.Wait()
	s.p50, s.p99 = all.p(50), all.p(99)
	return s, err
}
