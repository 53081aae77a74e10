package overlay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// tableOf is a table of "ns": "agent/a=eu,us" is an agent with these places, "agent/a=" one that is declared and ready nowhere.
func tableOf(t interface{ Fatal(...any) }, entries ...string) delta.Resource {
	var routes []*routev3.Route
	for _, entry := range entries {
		path, places, _ := strings.Cut(entry, "=")
		r := routeTo(path)
		if places == "" {
			r.Action = router.UnknownName().Direct()
		} else {
			r.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: clusterOf(places)}
		}
		routes = append(routes, r)
	}
	return tableWith(t, routes...)
}

func clusterOf(places string) string {
	if strings.Contains(places, ",") {
		return "set/" + places
	}
	return SpokePrefix + places
}

// readPlaced is what tableOf was given; routes of types are left out.
func readPlaced(t interface{ Fatal(...any) }, r delta.Resource) (out []string) {
	src, err := decodeScope(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range src.GetRouteConfiguration().GetVirtualHosts()[0].GetRoutes() {
		prefix := prefixOf(route)
		if strings.Count(prefix, "/") != resourceDepth {
			continue
		}
		places := ""
		for _, c := range clustersOfRoute(route) {
			_, places, _ = strings.Cut(c, "/")
		}
		out = append(out, strings.TrimPrefix(prefix, "/ns/")+"="+places)
	}
	slices.Sort(out)
	return out
}

func doubt(spokes ...string) Doubt {
	d := Doubt{Spokes: map[string]bool{}, Places: func(cluster string) []string {
		places, ok := strings.CutPrefix(cluster, "set/")
		if !ok || strings.Contains(places, "unread") {
			return nil
		}
		return strings.Split(places, ",")
	}}
	for _, s := range spokes {
		d.Spokes[s] = true
	}
	return d
}

func TestHold(t *testing.T) {
	type list = []string
	for _, c := range []struct {
		name               string
		held, before, said list // said nil: the hub has no table
		doubted            string
		want               list
		routes             int
	}{
		{"a route of a spoke that is not known", list{"agent/a=eu", "agent/b=us"}, nil, list{"agent/b=us"}, "eu", list{"agent/a=eu", "agent/b=us"}, 1},
		{"of one that is", list{"agent/a=eu", "agent/b=us"}, nil, list{"agent/b=us"}, "ap", list{"agent/b=us"}, 0},
		{"the whole table", list{"agent/a=eu", "mcp/b=us"}, nil, nil, "eu", list{"agent/a=eu"}, 1},
		{"nothing of a table that is gone", list{"agent/a=us"}, nil, nil, "eu", nil, 0},
		{"what the hub said itself", list{"agent/a=eu", "agent/b=us"}, list{"agent/a=eu"}, list{"agent/b=us"}, "eu", list{"agent/b=us"}, 0},
		{"a place among several", list{"agent/a=us,eu"}, nil, list{"agent/a=us"}, "eu", list{"agent/a=us,eu"}, 1},
		{"and again, though the hub said the others", list{"agent/a=us,eu"}, list{"agent/a=us"}, list{"agent/a=us", "agent/b=us"}, "eu", list{"agent/a=us,eu", "agent/b=us"}, 1},
		{"a new owner", list{"agent/a=eu"}, nil, list{"agent/a=us"}, "eu", list{"agent/a=us"}, 0},
		{"a new owner beside the old", list{"agent/a=us,eu"}, nil, list{"agent/a=us,ap"}, "eu", list{"agent/a=us,ap"}, 0},
		{"one of the others has withdrawn it", list{"agent/a=us,ap,eu"}, nil, list{"agent/a=us"}, "eu", list{"agent/a=us"}, 0},
		{"all others have", list{"agent/a=us,eu"}, nil, list{}, "eu", list{"agent/a=eu"}, 1},
		{"nobody whom the hub knows is ready", list{"agent/a=us,eu"}, nil, list{"agent/a="}, "eu", list{"agent/a=eu"}, 1},
		{"all others have, and several are in doubt", list{"agent/a=us,eu,ap"}, nil, list{}, "eu,ap", list{"agent/a=us,eu,ap"}, 1},
		{"it was not ready", list{"agent/a="}, nil, list{}, "eu", list{}, 0},
		{"nobody is known", list{"agent/a=us,eu", "agent/b=ap"}, nil, nil, "eu,us,ap", list{"agent/a=us,eu", "agent/b=ap"}, 2},
		{"the same places in another order", list{"agent/a=us,eu"}, nil, list{"agent/a=eu,us"}, "eu", list{"agent/a=eu,us"}, 0},
		{"a cluster that is not held", list{"agent/a=eu,unread"}, nil, list{}, "eu", list{}, 0},
		{"the hub names a cluster that is not held", list{"agent/a=eu"}, nil, list{"agent/a=eu,unread"}, "eu", list{"agent/a=eu,unread"}, 0},
	} {
		var before, said *delta.Resource
		if c.before != nil {
			r := tableOf(t, c.before...)
			before = &r
		}
		if c.said != nil {
			r := tableOf(t, c.said...)
			said = &r
		}
		out, err := Hold(tableOf(t, c.held...), before, said, doubt(strings.Split(c.doubted, ",")...))
		if err != nil || out.Routes != c.routes {
			t.Errorf("%s: %d routes kept, want %d, %v", c.name, out.Routes, c.routes, err)
			continue
		}
		if said == nil && out.Routes == 0 {
			continue
		}
		if got := readPlaced(t, out.Resource); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if out.Routes == 0 && out.Resource.Version != said.Version {
			t.Errorf("%s: nothing is kept, and the table is another than the hub's", c.name)
		}
	}
}

// TestHoldTreatsRequestsAsTheHubSays: a spoke that is not known keeps its place, and no time-out, affinity or retries of others.
func TestHoldTreatsRequestsAsTheHubSays(t *testing.T) {
	retry := func(on string, times uint32, wait time.Duration) *routev3.RetryPolicy {
		return &routev3.RetryPolicy{RetryOn: on, NumRetries: wrapperspb.UInt32(times), PerTryTimeout: durationpb.New(wait)}
	}
	table := func(places string, routes ...*routev3.RouteAction) delta.Resource {
		src := homeScope("ns")
		vh := src.GetRouteConfiguration().GetVirtualHosts()[0]
		vh.RetryPolicy = retry("connect-failure", 1, 120*time.Second)
		var front []*routev3.Route
		for _, a := range routes {
			r := routeTo("agent/a")
			a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: clusterOf(places)}
			r.Action = &routev3.Route_Route{Route: a}
			front = append(front, r)
		}
		vh.Routes = append(front, vh.GetRoutes()...)
		r, err := delta.NewResource(src.GetName(), src)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	moving := retry("connect-failure,"+missRetried, 3, 5*time.Second)
	moving.RetriableHeaders = []*routev3.HeaderMatcher{{Name: "x-miss"}}
	moving.HostSelectionRetryMaxAttempts = 7
	sticky := []*routev3.RouteAction_HashPolicy{{Terminal: true}}
	held := table("us,eu", &routev3.RouteAction{RetryPolicy: moving, HashPolicy: sticky, MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{}})
	for name, c := range map[string]struct {
		places string
		said   []*routev3.RouteAction
		on     []string
		times  uint32
		wait   time.Duration
	}{
		"as the table's routes are usually": {"us", []*routev3.RouteAction{{}}, []string{"connect-failure," + missRetried}, 3, 120 * time.Second},
		"another time-out":                  {"us", []*routev3.RouteAction{{RetryPolicy: retry("connect-failure", 1, time.Second)}}, []string{"connect-failure," + missRetried}, 3, time.Second},
		"one for safe methods before it": {"us", []*routev3.RouteAction{{RetryPolicy: retry("gateway-error", 2, time.Second)}, {RetryPolicy: retry("", 2, time.Second)}},
			[]string{"gateway-error," + missRetried, missRetried}, 2, time.Second},
		"no retries": {"us", []*routev3.RouteAction{{RetryPolicy: retry("", 0, time.Second)}}, []string{""}, 0, time.Second},
	} {
		said := table(c.places, c.said...)
		out, err := Hold(held, nil, &said, doubt("eu"))
		if err != nil || out.Routes != 1 {
			t.Errorf("%s: %d routes kept, %v", name, out.Routes, err)
			continue
		}
		src, err := decodeScope(out.Resource)
		if err != nil {
			t.Fatal(err)
		}
		for i, on := range c.on {
			a := src.GetRouteConfiguration().GetVirtualHosts()[0].GetRoutes()[i].GetRoute()
			p := a.GetRetryPolicy()
			if a.GetCluster() != "set/us,eu" || a.GetHashPolicy() != nil || a.GetMaxStreamDuration() != nil {
				t.Errorf("%s: %v; the place is kept, and how the hub treats requests counts", name, a)
			}
			if p.GetRetryOn() != on || p.GetNumRetries().GetValue() != c.times || p.GetPerTryTimeout().AsDuration() != c.wait {
				t.Errorf("%s: retries %v", name, p)
			}
			if moves := c.times > 0; moves != (len(p.GetRetriableHeaders()) == 1 && p.GetHostSelectionRetryMaxAttempts() == 7) {
				t.Errorf("%s: retries %v, moving on to the next place: %v", name, p, moves)
			}
		}
	}
}

// TestHoldOfAWholeTable: what is kept whole is what is held, byte by byte: nobody is sent it again.
func TestHoldOfAWholeTable(t *testing.T) {
	held := tableOf(t, "agent/a=eu", "mcp/b=eu", "mcp/c=us,eu")
	out, err := Hold(held, nil, nil, doubt("eu", "us"))
	if err != nil || out.Resource.Version != held.Version {
		t.Errorf("%v, %v", readPlaced(t, out.Resource), err)
	}
	if want := []string{"set/us,eu", "spoke/eu"}; !slices.Equal(out.Clusters, want) || !slices.Equal(out.Spokes, []string{"eu", "us"}) {
		t.Errorf("clusters %v, spokes %v", out.Clusters, out.Spokes)
	}
}

// TestHoldIsBoundedByTheSpokesInDoubt: whatever is held and said, a route of a spoke in doubt is there and one that has none is the hub's;
// each path is there once; the types' answers come after; doing it again changes nothing; and with nobody in doubt the table is the hub's.
func TestHoldIsBoundedByTheSpokesInDoubt(t *testing.T) {
	entry := rapid.Custom(func(t *rapid.T) map[string]string {
		out := map[string]string{}
		for _, p := range []string{"agent/a", "agent/b", "mcp/c"} {
			if s := rapid.SampledFrom([]string{"-", "", "eu", "us", "ap", "eu,us", "ap,eu", "ap,eu,us"}).Draw(t, p); s != "-" {
				out[p] = s
			}
		}
		return out
	})
	write := func(t interface{ Fatal(...any) }, m map[string]string) delta.Resource {
		var entries []string
		for _, p := range []string{"agent/a", "agent/b", "mcp/c"} {
			if s, ok := m[p]; ok {
				entries = append(entries, p+"="+s)
			}
		}
		return tableOf(t, entries...)
	}
	rapid.Check(t, func(t *rapid.T) {
		held, said := entry.Draw(t, "held"), entry.Draw(t, "said")
		d := doubt(rapid.SliceOfDistinct(rapid.SampledFrom([]string{"eu", "us"}), rapid.ID).Draw(t, "doubted")...)
		h, s := write(t, held), write(t, said)
		out, err := Hold(h, nil, &s, d)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, e := range readPlaced(t, out.Resource) {
			p, places, _ := strings.Cut(e, "=")
			if _, twice := got[p]; twice {
				t.Fatalf("%s twice: %v", p, e)
			}
			got[p] = places
		}
		for p, places := range held {
			inDoubt := slices.ContainsFunc(strings.Split(places, ","), func(s string) bool { return d.Spokes[s] })
			now, there := got[p]
			theirs, saidIt := said[p]
			switch {
			case inDoubt && (!there || now == ""):
				t.Fatalf("%s=%s is gone: %v, said %v", p, places, got, said)
			case !inDoubt && (there != saidIt || now != theirs):
				t.Fatalf("%s=%s is kept without a spoke in doubt: %v, said %v", p, places, got, said)
			}
		}
		for p, places := range said { // whom the hub places it with is among its places
			for _, s := range strings.Split(places, ",") {
				if !strings.Contains(","+got[p]+",", ","+s+",") && s != "" {
					t.Fatalf("%s lacks %s, which the hub says: %v", p, s, got)
				}
			}
		}
		list := paths(t, out.Resource)
		if list[len(list)-1] != "/" {
			t.Fatalf("no catch-all at the end: %v", list)
		}
		for i, p := range list {
			if !strings.Contains(p, "/") && slices.ContainsFunc(list[i:], func(q string) bool { return strings.HasPrefix(q, p+"/") }) {
				t.Fatalf("the answer for type %s is before one of its names: %v", p, list)
			}
		}
		if again, err := Hold(out.Resource, nil, &s, d); err != nil || again.Resource.Version != out.Resource.Version {
			t.Fatalf("again: %v, was %v, %v", paths(t, again.Resource), list, err)
		}
		if free, err := Hold(out.Resource, nil, &s, doubt()); err != nil || free.Resource.Version != s.Version || free.Routes != 0 {
			t.Fatalf("with nobody in doubt: %v, %v", paths(t, free.Resource), err)
		}
	})
}

func TestHoldOfWhatCannotBeRead(t *testing.T) {
	said := tableOf(t, "agent/a=us")
	bad := delta.Resource{Name: said.Name, Version: "x", Body: tableOf(t).Body}
	bad.Body.Value = []byte{1}
	for _, c := range []struct {
		held   delta.Resource
		before *delta.Resource
	}{{bad, nil}, {tableOf(t, "agent/b=eu"), &bad}} {
		if out, err := Hold(c.held, c.before, &said, doubt("eu")); err == nil || out.Routes != 0 || out.Resource.Version != said.Version {
			t.Errorf("%d routes kept, %v; what the hub says counts", out.Routes, err)
		}
	}
	if out, err := Hold(tableOf(t, "agent/b=eu"), nil, &bad, doubt("eu")); err == nil || out.Routes != 0 {
		t.Errorf("a table that cannot be read: %d routes kept, %v", out.Routes, err)
	}
}

func TestRefresh(t *testing.T) {
	kept := hubAssignment(t, "set/x", place{spoke: "eu"}, place{spoke: "us", priority: 1}, place{spoke: "ap", priority: 2}).raw
	other := func(spoke, address string, health corev3.HealthStatus) delta.Resource {
		a := hubAssignment(t, "spoke/"+spoke, place{spoke: spoke})
		e := a.cla.GetEndpoints()[0].GetLbEndpoints()[0]
		e.GetEndpoint().GetAddress().GetSocketAddress().Address, e.HealthStatus = address, health
		r, err := delta.NewResource(a.raw.Name, a.cla)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	gone := hubAssignment(t, "spoke/ap", place{spoke: "ap"})
	gone.cla.NamedEndpoints = map[string]*endpointv3.Endpoint{"ap/x": gone.cla.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint()}
	gone.cla.Endpoints = nil
	removed, err := delta.NewResource("spoke/ap", gone.cla)
	if err != nil {
		t.Fatal(err)
	}
	now := map[string]delta.Resource{"us": other("us", "192.0.2.77", corev3.HealthStatus_DEGRADED), "ap": removed}
	of := func(spoke string) (delta.Resource, bool) { r, ok := now[spoke]; return r, ok }
	out, err := Refresh(kept, of)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ReadAssignment(out)
	if err != nil {
		t.Fatal(err)
	}
	g := a.cla.GetEndpoints()
	if len(g) != 2 || g[0].GetPriority() != 0 || g[1].GetPriority() != 1 {
		t.Fatalf("a Spoke that was deleted is no place any more, and no priority is skipped: %v", g)
	}
	us, ap := g[0].GetLbEndpoints()[0], g[1].GetLbEndpoints()[0]
	if !strings.HasPrefix(addressOf(us.GetEndpoint()), "192.0.2.77:") || us.GetHealthStatus() != corev3.HealthStatus_DEGRADED || peerOf(us).Spoke != "us" {
		t.Errorf("us is %v", us)
	}
	if ap.GetHealthStatus() != corev3.HealthStatus_UNHEALTHY || len(a.cla.GetNamedEndpoints()) != 1 {
		t.Errorf("ap, which is removed for now, is %v", ap)
	}
	now["ap"] = other("ap", "192.0.2.78", corev3.HealthStatus_UNKNOWN)
	back, err := Refresh(out, of)
	if err != nil {
		t.Fatal(err)
	}
	if got := PlacesOf(back); !slices.Equal(got, []string{"us", "ap"}) {
		t.Errorf("places %v", got)
	}
	now["us"] = hubAssignment(t, "spoke/us").raw
	if silent, err := Refresh(back, of); err != nil || silent.Version != back.Version {
		t.Errorf("a spoke of which the hub names no router keeps those that it had: %v", err)
	}
}

// BenchmarkHold is what it costs to keep all 100 routes of a table of which the hub says half.
func BenchmarkHold(b *testing.B) {
	var all, half []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("agent/a%d=eu,us", i))
		if i%2 == 0 {
			half = append(half, fmt.Sprintf("agent/a%d=us", i))
		}
	}
	held, said := tableOf(b, all...), tableOf(b, half...)
	d := doubt("eu")
	for b.Loop() {
		if out, err := Hold(held, nil, &said, d); err != nil || out.Routes != 100 {
			b.Fatal(out.Routes, err)
		}
	}
}
