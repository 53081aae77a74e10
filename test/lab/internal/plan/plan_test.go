package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNew(t *testing.T) {
	for name, tc := range map[string]struct {
		clusters []string
		hub      string
		want     string // "a b(hub)" or the start of an error
	}{
		"hub of its own":       {[]string{"eu", "us"}, "", "eu us hub(hub)"},
		"hub in a spoke's":     {[]string{"eu", "us"}, "us", "eu us(hub)"},
		"hub as a spoke":       {[]string{"hub"}, "hub", "hub(hub)"},
		"none":                 {nil, "", "error: no clusters"},
		"twice":                {[]string{"eu", "eu"}, "", `error: cluster "eu" is listed twice`},
		"bad name":             {[]string{"E_U"}, "", `error: cluster name "E_U"`},
		"long name":            {[]string{strings.Repeat("a", 41)}, "", "error: cluster name"},
		"taken name":           {[]string{"hub"}, "", `error: cluster name "hub" is taken`},
		"hub in no cluster":    {[]string{"eu"}, "us", `error: hub cluster "us" is not one of`},
		"too many":             {strings.Split(strings.Repeat("c,", 30)+"c", ","), "", "error: "},
		"a path as a name":     {[]string{"../eu"}, "", "error: cluster name"},
		"an empty name":        {[]string{""}, "", "error: cluster name"},
		"trailing comma given": {[]string{"eu", ""}, "", "error: cluster name"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(tc.clusters, tc.hub)
			var words []string
			for _, c := range p.Clusters {
				if c.Hub {
					words = append(words, c.Name+"(hub)")
				} else {
					words = append(words, c.Name)
				}
			}
			got := strings.Join(words, " ")
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != tc.want && !(strings.HasPrefix(tc.want, "error: ") && strings.HasPrefix(got, tc.want)) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if err == nil && !p.HubCluster().Hub {
				t.Error("HubCluster is not the hub's")
			}
		})
	}
}

// TestAddressesAreDisjoint: no two things of a plan share an address, and every address has the owner that it should.
func TestAddressesAreDisjoint(t *testing.T) {
	var names []string
	for i := range maxClusters - 1 {
		names = append(names, fmt.Sprintf("c%d", i))
	}
	p, err := New(names, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]string{}
	for i, c := range p.Clusters {
		client, node := c.ClientLink()
		pod, _ := c.Pods().Take()
		lb, _ := c.Balancers().Take()
		for what, a := range map[string]netip.Addr{"node": c.Node(), "hub": c.HubBalancer(), "router": c.RouterBalancer(), "pod": pod, "lb": lb} {
			if p.Owner(a) != i || !c.Prefix().Contains(a) {
				t.Errorf("%s of %s: %s is owned by %d", what, c.Name, a, p.Owner(a))
			}
			if balanced := what == "hub" || what == "router" || what == "lb"; balanced == c.PodPrefix().Contains(a) {
				t.Errorf("%s of %s: %s is on the wrong side of the pods' link", what, c.Name, a)
			}
		}
		for what, a := range map[string]netip.Addr{"node": c.Node(), "hub": c.HubBalancer(), "router": c.RouterBalancer(), "pod": pod, "lb": lb, "client": client.Addr(), "peer": node.Addr(), "wan": c.WAN().Addr()} {
			if other, ok := seen[a]; ok {
				t.Errorf("%s is %s of %s and %s", a, what, c.Name, other)
			}
			seen[a] = what + " of " + c.Name
			if netip.MustParsePrefix(ServiceCIDR).Contains(a) {
				t.Errorf("%s lies in the Service range", a)
			}
		}
	}
	for _, a := range []string{"10.63.0.1", "10.94.0.1", "192.0.2.1", "::1"} {
		if got := p.Owner(netip.MustParseAddr(a)); got != -1 {
			t.Errorf("%s has owner %d", a, got)
		}
	}
}

func TestPoolNeverHandsOutTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := netip.MustParseAddr("10.64.0.2")
		last := first
		const size = 8
		for range size - 1 {
			last = last.Next()
		}
		p := newPool(first, last)
		held := map[netip.Addr]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(held) > 0 && rapid.Bool().Draw(t, "release") {
				for a := range held {
					p.Release(a)
					delete(held, a)
					break
				}
				continue
			}
			a, err := p.Take()
			if (err != nil) != (len(held) == size) {
				t.Fatalf("with %d of %d held: %v", len(held), size, err)
			}
			if err == nil && held[a] {
				t.Fatalf("%s handed out twice", a)
			}
			if err == nil {
				held[a] = true
			}
		}
	})
}
