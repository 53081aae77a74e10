package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

// NotFound says which part of a question names nothing.
type NotFound struct{ Detail string }

func (e *NotFound) Error() string { return e.Detail }

// Resources tells what is known, of one namespace and one type where they are given, sorted by path.
func (e *Engine) Resources(namespace, kind string) debugapi.Resources {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := debugapi.Resources{Epoch: e.o.Epoch.UID(), Waiting: incomplete(e.taken), Resources: []debugapi.Resource{}}
	select {
	case <-e.open:
		out.Serving = true
	default:
	}
	for _, ns := range slices.Sorted(maps.Keys(e.b.shards)) {
		if namespace != "" && ns != namespace {
			continue
		}
		for _, r := range e.b.shards[ns].resources {
			if kind == "" || kind == string(r.Type) {
				out.Resources = append(out.Resources, e.describe(e.b.shards[ns], r))
			}
		}
	}
	return out
}

func (e *Engine) describe(s *shard, r federate.Resource) debugapi.Resource {
	set, _ := e.b.cuts.Of(s.setOf(r))
	out := debugapi.Resource{
		Path: r.Path(), Namespace: r.Namespace, Type: string(r.Type), Name: r.Name, Cluster: set.Name(),
		Decider: r.Decider, Policy: policyName(s.inForce[r.Key]), TimeoutSeconds: r.TimeoutSeconds,
	}
	for _, p := range r.Protocols {
		out.Protocols = append(out.Protocols, string(p))
	}
	for _, p := range r.Places {
		out.Places = append(out.Places, debugapi.Place{Spoke: p.Spoke, Ready: p.Ready, Held: p.Held, Health: federate.HealthOf(e.b.spokes[p.Spoke]).String()})
	}
	for _, c := range s.conflicts {
		if c.Key == r.Key {
			out.Conflicts = append(out.Conflicts, debugapi.Conflict{Spoke: c.Spoke, Fields: c.Fields})
		}
	}
	if s.err != nil {
		out.Error = s.err.Error()
	}
	return out
}

// Explain tells where a request for a path goes from a spoke, and why. The error is a *NotFound.
func (e *Engine) Explain(path, from string) (debugapi.Explanation, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	key, err := e.find(path)
	if err != nil {
		return debugapi.Explanation{}, err
	}
	origin, ok := e.b.spokes[from]
	if !ok {
		return debugapi.Explanation{}, &NotFound{fmt.Sprintf("no Spoke %q", from)}
	}
	s := e.b.shards[key.Namespace]
	i := slices.IndexFunc(s.resources, func(r federate.Resource) bool { return r.Key == key })
	r := s.resources[i]
	set, cut := e.b.cuts.Of(s.setOf(r))
	out := debugapi.Explanation{Resource: e.describe(s, r), From: from, Order: e.order(origin, set), Inputs: []debugapi.Input{}, PolicyWhy: policyWhy(s, r)}
	switch {
	case len(out.Order) == 0:
		out.Answer = "503 no-ready-endpoint: declared, but ready nowhere"
	case cut:
		out.Answer = fmt.Sprintf("%s first; places or parts of the policy were left out, since the fleet has more than %d combinations of places and policies", out.Order[0].Spoke, e.o.SetLimit)
	case out.Order[0].Share > 0 && out.Order[0].Share < 100:
		out.Answer = "shared by weight"
	default:
		out.Answer = out.Order[0].Spoke + " first"
	}
	for _, p := range r.Places {
		out.Inputs = append(out.Inputs, e.input(p.Spoke, key))
	}
	return out, nil
}

// find reads a path and says which of its parts names nothing.
func (e *Engine) find(path string) (federate.Key, error) {
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 4)
	if len(parts) < 3 || parts[2] == "" {
		return federate.Key{}, &NotFound{fmt.Sprintf("%q is not /namespace/type/name", path)}
	}
	key := federate.Key{Namespace: parts[0], Type: v1alpha1.ResourceType(parts[1]), Name: parts[2]}
	s := e.b.shards[key.Namespace]
	if s == nil {
		return key, &NotFound{fmt.Sprintf("unknown namespace %q: no spoke exports a resource from it", key.Namespace)}
	}
	if !slices.ContainsFunc(s.resources, func(r federate.Resource) bool { return r.Type == key.Type }) {
		return key, &NotFound{fmt.Sprintf("unknown type %q: namespace %q has none", key.Type, key.Namespace)}
	}
	if !slices.ContainsFunc(s.resources, func(r federate.Resource) bool { return r.Key == key }) {
		return key, &NotFound{fmt.Sprintf("unknown name %q: namespace %q has no %s of this name", key.Name, key.Namespace, key.Type)}
	}
	return key, nil
}

// order is that of the assignment, with what a router makes of it: its own place first, unless a policy says otherwise, then
// by health.
func (e *Engine) order(origin federate.Spoke, set compile.Set) []debugapi.Step {
	out := []debugapi.Step{}
	rank := map[string]int{}
	steps, shares := e.steps(origin, set)
	for _, r := range federate.Order(federate.ViewOf(origin), set.Places, e.b.spokes, e.b.regions) {
		s := e.b.spokes[r.Spoke]
		step := debugapi.Step{Spoke: r.Spoke, Why: r.Nearness.String(), Step: steps[r.Spoke], Share: shares[r.Spoke]}
		health := federate.HealthOf(s)
		rank[r.Spoke] = 1 + int(health)
		switch {
		case r.Spoke == origin.Name:
			step.Why, step.Use = "own cluster", "used, without a hop between clusters"
			rank[r.Spoke] = 1
			if set.Placement.Local() {
				rank[r.Spoke] = 0
			}
		case len(s.Routers) == 0:
			step.Use = "not used: no router address is known"
			rank[r.Spoke] = 9
		default:
			step.Use = use(health, e.o.Liveness.Facts(r.Spoke))
		}
		if step.Why == federate.Elsewhere.String() {
			step.Why = "distance"
			if math.IsInf(r.DistanceKm, 1) {
				step.Why = "distance unknown, by name"
			} else {
				step.DistanceKm = &r.DistanceKm
			}
		}
		for _, a := range s.Routers {
			step.Routers = append(step.Routers, a.String())
		}
		out = append(out, step)
	}
	slices.SortStableFunc(out, func(a, b debugapi.Step) int { return cmp.Or(rank[a.Spoke]-rank[b.Spoke], a.Step-b.Step) })
	return out
}

// use says in words how requests treat a place of another cluster.
func use(health federate.Health, f liveness.SpokeFacts) string {
	told := ""
	if n := len(f.Reach.Against); n > 0 {
		told = fmt.Sprintf("%d of %d spokes that can tell cannot reach it", n, f.Reach.Witnesses)
	}
	switch health {
	case federate.Gone:
		if told == "" {
			told = "a quorum could not reach it, and nobody can tell now"
		}
		return "not used: its Lease has expired, and " + told
	case federate.Draining:
		return "no new requests: the spoke is draining"
	}
	out := "used"
	switch {
	case health == federate.Degraded:
		out = "used last: its Lease has expired"
	case f.Availability == liveness.Held:
		out = "used: its Lease has expired, with too many others at once to conclude anything"
	}
	if told != "" {
		out += "; " + told
	}
	return out
}

func (e *Engine) input(spoke string, key federate.Key) debugapi.Input {
	f := e.o.Liveness.Facts(spoke)
	out := debugapi.Input{Spoke: spoke, Slices: []debugapi.Slice{}, Lease: f.Availability.String(), Witnesses: f.Reach.Witnesses, UnreachableFrom: f.Reach.Against}
	if e.o.LeaseAge != nil {
		if age, ok := e.o.LeaseAge(spoke); ok {
			out.LeaseAgeSeconds = seconds(age)
		}
	}
	in, ok := e.o.Registry.Inputs(spoke, key)
	if !ok {
		return out
	}
	out.Session, out.Complete = in.Session, in.Complete
	if in.ReportAge >= 0 {
		out.ReportAgeSeconds = seconds(in.ReportAge)
	}
	for _, s := range in.Slices {
		out.Slices = append(out.Slices, debugapi.Slice{Name: s.Name, Generation: s.Generation, AgeSeconds: *seconds(s.Age)})
	}
	return out
}

func seconds(d time.Duration) *float64 {
	s := math.Round(d.Seconds()*1000) / 1000
	return &s
}
