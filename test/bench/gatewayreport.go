package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

func reportGateways(o options, m made, st stormed, rows ...gatewayRow) string {
	var s strings.Builder
	fmt.Fprintf(&s, `# Benchmarks of Gateways

`+"`make bench-gateway`"+`, %s, %d cores, %s/%s, %s. One run; three clusters, a real Envoy Gateway in each, load and measurement share the machine.

## One route changes

HTTPRoute changed on the hub -> the Gateways of all three clusters answer by it; and the same route, changed in all three clusters at once, which is Envoy
Gateway's own share. %d changes each, in turn, asked every 1 ms, ms from before the call.

| routes there | hub p50 / p90 / p99 / max | direct p50 / p90 / p99 / max | hub's writes per change | writes of a pass with nothing to do |
|---|---|---|---|---|
`, time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), o.gatewayChanges)
	for _, r := range rows {
		fmt.Fprintf(&s, "| %d | %s | %s | %s | %s |\n", r.routes, r.hub.row(), r.direct.row(), r.writes.per(len(r.hub)), r.idle.per(1))
	}
	fmt.Fprintf(&s, "\nOne changed route is to be one program per selected cluster: program 3. Status is of the user's route: what the clusters tell of it.\n\n"+
		"## %d routes at once\n\nCreated with 16 calls under way. Seconds since the first: all created %.1f, all applied in all clusters and told so %.1f, the first, a middle and the last served everywhere %.1f.\nThe hub's writes: %s.\n",
		o.routes, m.created.Seconds(), m.applied.Seconds(), m.served.Seconds(), m.writes.per(1))
	s.WriteString("\n| routes there | hub MiB | spoke controller MiB | Envoy Gateway MiB |\n|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "| %d | %d | %d | %d |\n", r.routes, r.memory["hub"], r.memory["spoke"], r.memory["envoy-gateway"])
	}
	failed := int64(0)
	for _, n := range st.failed {
		failed += n
	}
	fmt.Fprintf(&s, "\n## A route that does not change while others do\n\n%d changes of other routes on the hub, 8 calls under way, in force everywhere after %.1f s. "+
		"Meanwhile one client per cluster asked for one route that did not change:\n%d requests, %d failed%s, p50 %s ms, p99 %s ms.\n",
		st.changes, st.took.Seconds(), st.requests, failed, byStatus(st.failed), ms(st.p50), ms(st.p99))
	return s.String()
}

func byStatus(failed map[int]int64) string {
	var out []string
	for _, code := range slices.Sorted(maps.Keys(failed)) {
		out = append(out, fmt.Sprintf("%d: %d", code, failed[code]))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

func (d durations) row() string {
	return fmt.Sprintf("%s / %s / %s / %s", ms(d.p(50)), ms(d.p(90)), ms(d.p(99)), ms(d.p(100)))
}
