package main

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

func reportAuthorisation(r authorisationResults) string {
	var s strings.Builder
	fmt.Fprintf(&s, `# Benchmarks of the authorisation between routers

`+"`make bench-authz-lab`"+`, %s, %d cores, %s/%s, %s. One run; clusters, load and measurement share the machine%s.

%d spokes: %d clusters with a real relay and Envoy each, and %d Spokes without a cluster, of which %d have joined as any spoke does and follow the hub as a
relay does, in the measuring process. All were made by the API and could be joined after %.0f s.

## A spoke joins, and is deleted

%d spokes, one after the other. Each asks the routers of all %d clusters every %d ms over a connection that stays open; ms, over the last of the routers unless it says each.

| from -> to | p50 | p90 | p99 | max |
|---|---|---|---|---|
`, time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), loadText(),
		r.spokes, r.real, r.spokes-r.real, r.streams, r.filled.Seconds(), len(r.moves.joined), r.real, asking.Milliseconds())
	m := r.moves
	for _, row := range []struct {
		what string
		d    durations
	}{
		{"Spoke made -> certificate held", m.joined},
		{fmt.Sprintf("Spoke made -> authorisation of all %d streams has it", r.streams), m.inStreams},
		{"Spoke made -> let in everywhere", m.inFromMade},
		{"certificate held -> let in everywhere", m.inFromLeaf},
		{"certificate held -> let in, each router", m.eachIn},
		{fmt.Sprintf("delete call -> authorisation of all %d streams lacks it", r.streams), m.outStreams},
		{"delete call -> refused everywhere, on the connection that was open", m.out},
		{"delete call -> refused, each router", m.eachOut},
	} {
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s |\n", row.what, ms(row.d.p(50)), ms(row.d.p(90)), ms(row.d.p(99)), ms(row.d.p(100)))
	}
	fmt.Fprintf(&s, "\n%d of %d spokes were refused by a router at least once although they held a certificate. After the last refusal a new connection was refused by every router, too.\n",
		m.turnedAway, len(m.joined))
	s.WriteString("\nWhere the time goes: means in ms of the same time, from the metrics of the parts.\n\n| hop | ms |\n|---|---|\n")
	for i, h := range authorisationHops {
		fmt.Fprintf(&s, "| %s | %s |\n", h.name, ms(r.hops[i]))
	}
	reportSent(&s, r)
	fmt.Fprintf(&s, "\n## Memory\n\nResident set of the largest process of each kind, MiB.\n\n| spokes | hub | relay | envoy |\n|---|---|---|---|\n| %d | %d | %d | %d |\n| %d | %d | %d | %d |\n",
		r.real, r.few["hub"], r.few["relay"], r.few["envoy"], r.spokes, r.many["hub"], r.many["relay"], r.many["envoy"])
	reportFaults(&s, r)
	return s.String()
}

func reportSent(s *strings.Builder, r authorisationResults) {
	fmt.Fprintf(s, "\nWhat the hub sends to one stream for a spoke that joins and is deleted, KiB by type:")
	streams := float64(r.streams + r.real)
	for i, t := range slices.Sorted(maps.Keys(r.sent.bytes)) {
		if i > 0 {
			s.WriteString(",")
		}
		fmt.Fprintf(s, " %s %.1f", t, r.sent.bytes[t]/1024/streams/float64(len(r.moves.joined)))
	}
	if n := r.sent.resources[extensions]; n > 0 {
		fmt.Fprintf(s, ".\nThe authorisation is one resource of %.0f KiB, sent whole at each change: %.1f times to a stream for each spoke that joined and was deleted",
			r.sent.bytes[extensions]/n/1024, n/streams/float64(len(r.moves.joined)))
	}
	s.WriteString(".\n")
}

func reportFaults(s *strings.Builder, r authorisationResults) {
	fmt.Fprintf(s, `
## Nobody is locked out

Meanwhile %d spokes ask the router of each cluster, twice a second each, for an agent there; each cluster's edge is asked ten times a second for the agent of each other one; and
a spoke that was deleted before asks every router. Requests: refused is 403, failed is any other answer than 200.

| what happens | s | spokes: requests, refused, failed | between clusters: requests, refused, failed | the deleted one: requests, let in |
|---|---|---|---|---|
`, min(asPeers, r.streams))
	for _, f := range r.faults {
		fmt.Fprintf(s, "| %s | %.1f | %s | %s | %d, %d |\n", f.what, f.took.Seconds(), f.peers, f.pairs, f.outsiders.asked, f.outsiders.ok)
	}
	if n := len(r.after.joined); n > 0 {
		fmt.Fprintf(s, "\nAt once after that %d spokes joined and were deleted again. At most: certificate held %s ms after its Spoke was made, in the authorisation of every stream after %s ms, "+
			"let in everywhere after %s ms; refused everywhere %s ms after it was deleted.\n",
			n, ms(r.after.joined.p(100)), ms(r.after.inStreams.p(100)), ms(r.after.inFromMade.p(100)), ms(r.after.out.p(100)))
	}
}

func (t tally) String() string { return fmt.Sprintf("%d, %d, %d", t.asked, t.refused, t.failed) }

// loadText is what the machine did in the last five minutes beside, or with, this.
func loadText() string {
	raw, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(raw))
	if err != nil || len(f) < 2 {
		return ""
	}
	return "; load average over the last five minutes " + f[1]
}
