package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

func newTestLinks(t *testing.T) (*links, map[[2]int]netlab.Path) {
	t.Helper()
	p, err := plan.New([]string{"eu", "us", "ap"}, "eu")
	if err != nil {
		t.Fatal(err)
	}
	l := newLinks(p, nil, 20*time.Millisecond)
	got := map[[2]int]netlab.Path{}
	l.set = func(from, to int, how netlab.Path) { got[[2]int{from, to}] = how }
	return l, got
}

func TestLinks(t *testing.T) {
	const base = 10 * time.Millisecond
	api := netlab.Match{Prefix: netip.MustParsePrefix("10.64.0.1/32"), Port: 6443}
	grpc := netlab.Match{Prefix: netip.MustParsePrefix("10.64.128.1/32"), Port: 8443}
	hub := netlab.Path{Delay: base, Cuts: []netlab.Match{api, grpc}}
	all := netlab.Path{Delay: base, Cuts: []netlab.Match{{}}}
	eastwest := netlab.Path{Delay: base, Cuts: []netlab.Match{{Port: 15443}}}
	type paths = map[[2]int]netlab.Path
	for name, tc := range map[string]struct {
		do   []wire.LinkRequest
		want paths
	}{
		"a pair":        {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "ap"}}, paths{{1, 2}: all, {2, 1}: all}},
		"one way":       {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "ap", OneWay: true}}, paths{{1, 2}: all}},
		"from the hub":  {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "hub"}}, paths{{1, 0}: hub, {0, 1}: hub}},
		"control link":  {[]wire.LinkRequest{{Kind: "partition", From: "eu", To: "ap", Link: "control", OneWay: true}}, paths{{0, 2}: hub}},
		"data link":     {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "eu", Link: "data"}}, paths{{1, 0}: eastwest, {0, 1}: eastwest}},
		"a port of one": {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "ap:15443", OneWay: true}}, paths{{1, 2}: {Delay: base, Cuts: []netlab.Match{{Prefix: netip.MustParsePrefix("10.66.0.0/16"), Port: 15443}}}}},
		"cuts add up and are not told twice": {[]wire.LinkRequest{
			{Kind: "partition", From: "us", To: "hub", OneWay: true}, {Kind: "partition", From: "us", To: "hub", OneWay: true},
			{Kind: "partition", From: "us", To: "eu", Link: "data", OneWay: true},
		}, paths{{1, 0}: {Delay: base, Cuts: []netlab.Match{api, grpc, {Port: 15443}}}}},
		"slow": {[]wire.LinkRequest{{Kind: "delay", From: "us", To: "ap", RTT: 300 * time.Millisecond, Loss: 1, Rate: 10, OneWay: true}},
			paths{{1, 2}: {Delay: base + 150*time.Millisecond, Loss: 0.01, Rate: 10_000_000}}},
		"slow and cut": {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "ap", OneWay: true}, {Kind: "delay", From: "us", To: "ap", OneWay: true}},
			paths{{1, 2}: all}},
		"healed": {[]wire.LinkRequest{{Kind: "partition", From: "us", To: "ap"}, {Kind: "delay", From: "us", To: "ap", Loss: 3}, {Kind: "heal", From: "ap", To: "us"}},
			paths{{1, 2}: {Delay: base}, {2, 1}: {Delay: base}}},
	} {
		t.Run(name, func(t *testing.T) {
			l, got := newTestLinks(t)
			for _, r := range tc.do {
				if _, err := l.do(r); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLinksHealAll(t *testing.T) {
	l, got := newTestLinks(t)
	if _, err := l.do(wire.LinkRequest{Kind: "partition", From: "us", To: "ap"}); err != nil {
		t.Fatal(err)
	}
	acted, err := l.do(wire.LinkRequest{Kind: "heal"})
	if err != nil || len(acted) != 6 || !slices.Contains(acted, "us -> ap") {
		t.Errorf("healed %v, %v", acted, err)
	}
	for key, p := range got {
		if len(p.Cuts) > 0 || p.Delay != 10*time.Millisecond {
			t.Errorf("%v: %+v", key, p)
		}
	}
}

func TestLinksRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		r    wire.LinkRequest
		says string
	}{
		"unknown cluster":  {wire.LinkRequest{Kind: "partition", From: "us", To: "mars"}, "mars"},
		"no end":           {wire.LinkRequest{Kind: "partition", From: "us"}, "endpoint"},
		"itself":           {wire.LinkRequest{Kind: "partition", From: "us", To: "us"}, "same cluster"},
		"hub and its own":  {wire.LinkRequest{Kind: "partition", From: "eu", To: "hub"}, "same cluster"},
		"port 0":           {wire.LinkRequest{Kind: "partition", From: "us:0", To: "ap"}, "1 to 65535"},
		"port too large":   {wire.LinkRequest{Kind: "partition", From: "us:65536", To: "ap"}, "1 to 65535"},
		"unknown link":     {wire.LinkRequest{Kind: "partition", From: "us", To: "ap", Link: "radio"}, "all, control or data"},
		"no control there": {wire.LinkRequest{Kind: "partition", From: "us", To: "ap", Link: "control"}, "no control link"},
		"link and hub":     {wire.LinkRequest{Kind: "partition", From: "us", To: "hub", Link: "data"}, "--link goes with two clusters"},
		"delay of the hub": {wire.LinkRequest{Kind: "delay", From: "us", To: "hub"}, "name clusters"},
		"loss":             {wire.LinkRequest{Kind: "delay", From: "us", To: "ap", Loss: 101}, "--loss"},
		"rate":             {wire.LinkRequest{Kind: "delay", From: "us", To: "ap", Rate: 0.001}, "--rate"},
		"negative RTT":     {wire.LinkRequest{Kind: "delay", From: "us", To: "ap", RTT: -1}, "--rtt"},
		"kind":             {wire.LinkRequest{Kind: "burn", From: "us", To: "ap"}, "unknown fault"},
	} {
		l, got := newTestLinks(t)
		acted, err := l.do(tc.r)
		if err == nil || !strings.Contains(err.Error(), tc.says) || len(acted) > 0 || len(got) > 0 {
			t.Errorf("%s: acted on %v, error %v, want %q", name, acted, err, tc.says)
		}
	}
	l, _ := newTestLinks(t)
	l.set = nil
	if _, err := l.do(wire.LinkRequest{Kind: "heal"}); err == nil || !strings.Contains(err.Error(), "--faults") {
		t.Errorf("plain links: %v", err)
	}
}
