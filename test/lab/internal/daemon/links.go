package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// Links of a partition: the spokes' ways to the hub, what routers say to each other, or everything.
const (
	linkAll     = "all"
	linkControl = "control"
	linkData    = "data"
)

// Bounds of what a link may be asked to do: beyond them TCP does not work and a mistake is likelier than a wish.
const (
	maxAddedRTT = 10 * time.Second
	minRate     = 0.01
	maxRate     = 100_000
)

// links holds how every ordered pair of clusters is connected now.
type links struct {
	plan plan.Plan
	set  func(from, to int, how netlab.Path) // nil: plain links
	base time.Duration                       // of --rtt, in one direction

	mu    sync.Mutex
	paths map[[2]int]netlab.Path
}

func newLinks(p plan.Plan, s *netlab.Switch, rtt time.Duration) *links {
	l := &links{plan: p, base: rtt / 2, paths: map[[2]int]netlab.Path{}}
	if s != nil {
		l.set = s.SetPath
	}
	return l
}

// end is one side of a link: a cluster, and what of it is meant.
type end struct {
	cluster plan.Cluster
	hub     bool
	port    uint16
}

func (l *links) end(s string) (end, error) {
	if s == "hub" {
		if c, ok := l.plan.Cluster(s); ok && !c.Hub { // a spoke's cluster may have the name
			return end{}, fmt.Errorf("endpoint %q is a cluster without the hub here: write hub:PORT for it", s)
		}
		return end{cluster: l.plan.HubCluster(), hub: true}, nil
	}
	name, port, hasPort := strings.Cut(s, ":")
	c, ok := l.plan.Cluster(name)
	if !ok {
		return end{}, fmt.Errorf("endpoint %q: use hub, a cluster, or CLUSTER:PORT; the lab has %v", s, l.names())
	}
	e := end{cluster: c}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return end{}, fmt.Errorf("endpoint %q: the port is not a number from 1 to 65535", s)
		}
		e.port = uint16(n)
	}
	return e, nil
}

func (l *links) names() []string {
	var out []string
	for _, c := range l.plan.Clusters {
		out = append(out, c.Name)
	}
	return out
}

// do breaks or mends links; it says in which directions.
func (l *links) do(r wire.LinkRequest) ([]string, error) {
	if l.set == nil {
		return nil, errors.New("the clusters of this lab are linked by a plain bridge: start it with --faults (or --rtt) to break links")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Kind == "heal" && r.From == "" && r.To == "" {
		return l.healAll(), nil
	}
	from, err := l.end(r.From)
	if err != nil {
		return nil, err
	}
	to, err := l.end(r.To)
	if err != nil {
		return nil, err
	}
	if from.cluster.Index == to.cluster.Index {
		return nil, fmt.Errorf("%s and %s are in the same cluster, %s: nothing between them crosses a link", r.From, r.To, from.cluster.Name)
	}
	change, err := l.change(r, from, to)
	if err != nil {
		return nil, err
	}
	acted := []string{l.apply(from.cluster, to.cluster, change)}
	if !r.OneWay {
		acted = append(acted, l.apply(to.cluster, from.cluster, change))
	}
	return acted, nil
}

func (l *links) apply(from, to plan.Cluster, change func(*netlab.Path)) string {
	key := [2]int{from.Index, to.Index}
	p, ok := l.paths[key]
	if !ok {
		p.Delay = l.base
	}
	p.Cuts = slices.Clone(p.Cuts) // the switch reads the old ones
	change(&p)
	l.paths[key] = p
	l.set(from.Index, to.Index, p)
	return from.Name + " -> " + to.Name
}

func (l *links) healAll() []string {
	var acted []string
	for _, a := range l.plan.Clusters {
		for _, b := range l.plan.Clusters {
			if a.Index != b.Index {
				acted = append(acted, l.apply(a, b, l.mend))
			}
		}
	}
	return acted
}

func (l *links) mend(p *netlab.Path) { *p = netlab.Path{Delay: l.base} }

// change is what a request does to each direction.
func (l *links) change(r wire.LinkRequest, from, to end) (func(*netlab.Path), error) {
	switch r.Kind {
	case "heal":
		return l.mend, nil
	case "partition":
		cuts, err := l.cuts(r.Link, from, to)
		return func(p *netlab.Path) {
			for _, c := range cuts {
				if !slices.Contains(p.Cuts, c) {
					p.Cuts = append(p.Cuts, c)
				}
			}
		}, err
	case "delay":
		if from.hub || to.hub || from.port != 0 || to.port != 0 {
			return nil, errors.New("delay slows all that travels between two clusters: name clusters, not hub or ports")
		}
		if r.RTT < 0 || r.RTT > maxAddedRTT || r.Loss < 0 || r.Loss > 100 || (r.Rate != 0 && (r.Rate < minRate || r.Rate > maxRate)) {
			return nil, fmt.Errorf("delay: use --rtt 0 to %s, --loss 0 to 100 (percent), --rate %g to %d (Mbit/s)", maxAddedRTT, minRate, maxRate)
		}
		return func(p *netlab.Path) {
			p.Delay, p.Loss, p.Rate = l.base+r.RTT/2, r.Loss/100, int64(r.Rate*1e6)
		}, nil
	}
	return nil, fmt.Errorf("unknown fault %q of a link: use partition, heal or delay", r.Kind)
}

// cuts are the packets that a partition between two ends loses.
func (l *links) cuts(link string, ends ...end) ([]netlab.Match, error) {
	var named []netlab.Match
	for _, e := range ends {
		switch {
		case e.hub:
			named = append(named, l.hub()...)
		case e.port != 0:
			named = append(named, netlab.Match{Prefix: e.cluster.Prefix(), Port: e.port})
		}
	}
	if len(named) > 0 {
		if link != "" && link != linkAll {
			return nil, errors.New("--link goes with two clusters: hub and CLUSTER:PORT say by themselves what is cut")
		}
		return named, nil
	}
	switch cmp.Or(link, linkAll) {
	case linkAll:
		return []netlab.Match{{}}, nil
	case linkControl:
		if !ends[0].cluster.Hub && !ends[1].cluster.Hub {
			return nil, fmt.Errorf("the hub is in neither %s nor %s: no control link is between them", ends[0].cluster.Name, ends[1].cluster.Name)
		}
		return l.hub(), nil
	case linkData:
		return []netlab.Match{{Port: eastwestPort}}, nil
	}
	return nil, fmt.Errorf("--link %q: use all, control or data", link)
}

// hub is how spokes reach the hub: its API server and its gRPC port.
func (l *links) hub() []netlab.Match {
	c := l.plan.HubCluster()
	return []netlab.Match{{Prefix: netip.PrefixFrom(c.Node(), 32), Port: plan.APIPort}, {Prefix: netip.PrefixFrom(c.HubBalancer(), 32), Port: hubPort}}
}
