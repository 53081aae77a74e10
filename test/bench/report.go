package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// results with one number of agents known.
type results struct {
	known       string
	propagation propagation
	hops        []time.Duration // mean of each of hops, over the propagation row
	targets     []string
	requests    map[string]requests // by target and number of clients
	memory      map[string]int
}

func (b *bench) measure(ctx context.Context, known string) (results, error) {
	r := results{known: known, requests: map[string]requests{}}
	before, err := b.readHops(ctx, hops)
	if err != nil {
		return r, err
	}
	if r.propagation, err = b.propagate(ctx, b.opts.changes); err != nil {
		return r, err
	}
	after, err := b.readHops(ctx, hops)
	if err != nil {
		return r, err
	}
	for i := range hops {
		r.hops = append(r.hops, after[i].meanSince(before[i]))
	}
	local, remote := backend+b.fleet.at.Name, backend+b.fleet.from.Name
	urls := map[string]string{
		"straight to the agent": "http://" + net.JoinHostPort(b.podIP, "8000") + "/health",
		"edge, agent here":      b.fleet.at.Edge + "/" + benchNamespace + "/agent/" + local + "/health",
		"edge, agent elsewhere": b.fleet.at.Edge + "/" + benchNamespace + "/agent/" + remote + "/health",
	}
	r.targets = []string{"straight to the agent", "edge, agent here", "edge, agent elsewhere"}
	rounds := map[string][]requests{}
	for range b.opts.rounds {
		for _, target := range r.targets {
			for _, clients := range []int{1, 16} {
				got, err := b.load(ctx, urls[target], clients, b.opts.duration)
				if err != nil {
					return r, err
				}
				key := fmt.Sprintf("%s/%d", target, clients)
				rounds[key] = append(rounds[key], got)
			}
		}
	}
	for key, all := range rounds {
		sort.Slice(all, func(i, j int) bool { return all[i].p50 < all[j].p50 })
		r.requests[key] = all[len(all)/2]
	}
	r.memory, err = b.memory()
	return r, err
}

func report(o options, packages []packageRow, rows ...results) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Benchmarks\n\n`make bench`, %s, %d cores, %s, %s. One run; clusters, load and measurement share the machine. Gateways: [benchmarks-gateways.md](benchmarks-gateways.md); the authorisation between routers: [benchmarks-authorisation.md](benchmarks-authorisation.md).\n",
		time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version())
	reportPropagation(&s, o, rows)
	reportRequests(&s, o, rows)
	s.WriteString("\n## Memory\n\nResident set of the largest process of each kind, MiB.\n\n| agents known | hub | spoke | relay | envoy |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %d |\n", r.known, r.memory["hub"], r.memory["spoke"], r.memory["relay"], r.memory["envoy"])
	}
	reportPackages(&s, packages)
	return s.String()
}

func reportPropagation(s *strings.Builder, o options, rows []results) {
	fmt.Fprintf(s, "\n## Propagation\n\nEndpointSlice of a new agent created in one cluster -> first 200 at another cluster's edge, %d changes, polled every 1 ms, ms after the create call returned.\n\n", o.changes)
	s.WriteString("| agents known | write p50 | on the hub p50 / p99 | routable p50 / p90 / p99 / max |\n|---|---|---|---|\n")
	for _, r := range rows {
		p := r.propagation
		fmt.Fprintf(s, "| %s | %s | %s / %s | %s / %s / %s / %s |\n", r.known, ms(p.write.p(50)), ms(p.slice.p(50)), ms(p.slice.p(99)),
			ms(p.route.p(50)), ms(p.route.p(90)), ms(p.route.p(99)), ms(p.route.p(100)))
	}
	first, last := rows[0].propagation.route, rows[len(rows)-1].propagation.route
	fmt.Fprintf(s, "\nWith %s agents known against %s: p50 %.2fx, p99 %.2fx. To reach: p50 20 ms, p99 50 ms, 1.2x.\n", rows[len(rows)-1].known, rows[0].known,
		ratio(last.p(50), first.p(50)), ratio(last.p(99), first.p(99)))
	s.WriteString("\nWhere the time goes, hop by hop: means in ms of the same run, from the metrics of the parts (every change counts, those that declare and delete the agents too).\n\n| hop |")
	for _, r := range rows {
		fmt.Fprintf(s, " %s |", r.known)
	}
	s.WriteString("\n|---|" + strings.Repeat("---|", len(rows)) + "\n")
	for i, h := range hops {
		fmt.Fprintf(s, "| %s |", h.name)
		for _, r := range rows {
			fmt.Fprintf(s, " %s |", ms(r.hops[i]))
		}
		s.WriteString("\n")
	}
}

func reportRequests(s *strings.Builder, o options, rows []results) {
	fmt.Fprintf(s, "\n## Requests\n\nClosed loop of GETs, medians of %d rounds of %s; CPU is of all routers together.\n\n", o.rounds, o.duration)
	s.WriteString("| target | clients | agents known | p50 ms | p99 ms | requests/s | router CPU us/request |\n|---|---|---|---|---|---|---|\n")
	for _, target := range rows[0].targets {
		for _, clients := range []int{1, 16} {
			for _, r := range rows {
				q := r.requests[fmt.Sprintf("%s/%d", target, clients)]
				fmt.Fprintf(s, "| %s | %d | %s | %s | %s | %.0f | %d |\n", target, clients, r.known, ms(q.p50), ms(q.p99), q.rps, q.cpu.Microseconds())
			}
		}
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func ms(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 2, 64)
}

func splitHostPort(raw string) (string, int32) {
	if _, rest, ok := strings.Cut(raw, "://"); ok {
		raw = rest
	}
	host, port, err := net.SplitHostPort(raw)
	if err != nil {
		return raw, 0
	}
	n, _ := strconv.ParseInt(port, 10, 32)
	return host, int32(n)
}
