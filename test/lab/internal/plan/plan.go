package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// HubCluster is the name of the hub's cluster when the hub does not live in a spoke's.
const HubCluster = "hub"

// Limits of the plan: cluster i owns 10.(firstOctet+i).0.0/16, below the Service range 10.96.0.0/16.
const (
	firstOctet  = 64
	maxClusters = 30
	lbOctet     = 128 // third octet of the first load balancer address; pods are below
	reservedLBs = 16
)

// ServiceCIDR is the range of ClusterIPs. Nothing routes it: no chart of Isthmus needs a ClusterIP.
const ServiceCIDR = "10.96.0.0/16"

// APIPort is the port of every API server, on its node's address.
const APIPort = 6443

// Location is where a cluster's Spoke says that it is.
type Location struct{ Region, Latitude, Longitude string }

var locations = map[string]Location{
	"eu": {Region: "eu-central", Latitude: "50.11", Longitude: "8.68"},    // Frankfurt
	"us": {Region: "us-east", Latitude: "39.04", Longitude: "-77.49"},     // Virginia
	"ap": {Region: "ap-southeast", Latitude: "1.35", Longitude: "103.82"}, // Singapore
}

// Cluster is one cluster of the plan.
type Cluster struct {
	Name  string
	Index int  // position in the plan, from 0
	Spoke bool // false for a hub's own cluster
	Hub   bool // the hub lives here
}

// Plan is a lab's clusters: the spokes in the order given, and the hub's own cluster last if it has one.
type Plan struct{ Clusters []Cluster }

// New plans the named spoke clusters, with the hub in hubCluster, or in a cluster of its own named "hub" when
// hubCluster is empty. Names are DNS labels of at most 40 characters, as a Spoke's.
func New(clusters []string, hubCluster string) (Plan, error) {
	var p Plan
	for i, name := range clusters {
		if errs := validation.IsDNS1123Label(name); len(errs) > 0 || len(name) > 40 {
			return Plan{}, fmt.Errorf("cluster name %q: use a DNS label of at most 40 characters", name)
		}
		if slices.Index(clusters, name) != i {
			return Plan{}, fmt.Errorf("cluster %q is listed twice", name)
		}
		if name == HubCluster && hubCluster == "" {
			return Plan{}, fmt.Errorf("cluster name %q is taken by the hub's own cluster: choose another name or pass --hub-cluster hub", name)
		}
		p.Clusters = append(p.Clusters, Cluster{Name: name, Index: i, Spoke: true, Hub: name == hubCluster})
	}
	switch {
	case len(clusters) == 0:
		return Plan{}, fmt.Errorf("no clusters: name at least one, as in --clusters eu,us")
	case hubCluster != "" && !slices.Contains(clusters, hubCluster):
		return Plan{}, fmt.Errorf("hub cluster %q is not one of %v: add it to --clusters or leave --hub-cluster out", hubCluster, clusters)
	case hubCluster == "":
		p.Clusters = append(p.Clusters, Cluster{Name: HubCluster, Index: len(clusters), Hub: true})
	}
	if len(p.Clusters) > maxClusters {
		return Plan{}, fmt.Errorf("%d clusters: a lab holds at most %d, the hub's included", len(p.Clusters), maxClusters)
	}
	return p, nil
}

// HubCluster returns the cluster that the hub lives in.
func (p Plan) HubCluster() Cluster {
	return p.Clusters[slices.IndexFunc(p.Clusters, func(c Cluster) bool { return c.Hub })]
}

// Cluster finds a cluster by name.
func (p Plan) Cluster(name string) (Cluster, bool) {
	i := slices.IndexFunc(p.Clusters, func(c Cluster) bool { return c.Name == name })
	if i < 0 {
		return Cluster{}, false
	}
	return p.Clusters[i], true
}

// Owner returns the index of the cluster that owns an address, or -1.
func (p Plan) Owner(a netip.Addr) int {
	if !a.Is4() {
		return -1
	}
	b := a.As4()
	if i := int(b[1]) - firstOctet; b[0] == 10 && i >= 0 && i < len(p.Clusters) {
		return i
	}
	return -1
}

func (c Cluster) addr(third, fourth byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(firstOctet + c.Index), third, fourth})
}

// Prefix holds every address of the cluster.
func (c Cluster) Prefix() netip.Prefix { return netip.PrefixFrom(c.addr(0, 0), 16) }

// PodPrefix is what pods see as their own link; load balancers are outside of it, so that they are routed.
func (c Cluster) PodPrefix() netip.Prefix { return netip.PrefixFrom(c.addr(0, 0), 17) }

// Node is the address of the cluster's node and API server.
func (c Cluster) Node() netip.Addr { return c.addr(0, 1) }

// APIServer is the URL of the cluster's API server.
func (c Cluster) APIServer() string { return fmt.Sprintf("https://%s:%d", c.Node(), APIPort) }

// WAN is the node's address on the network between clusters.
func (c Cluster) WAN() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 62, 0, byte(c.Index + 1)}), 24)
}

// ClientLink is the link between the lab's client network and the node: the client's address, then the node's.
func (c Cluster) ClientLink() (client, node netip.Prefix) {
	at := func(last byte) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 61, byte(c.Index), last}), 30)
	}
	return at(2), at(1)
}

// HubBalancer is the load balancer address of the hub's Service; it is fixed, so that it is known before the chart is
// installed.
func (c Cluster) HubBalancer() netip.Addr { return c.addr(lbOctet, 1) }

// RouterBalancer is the load balancer address of the router's Service, as fixed as the hub's.
func (c Cluster) RouterBalancer() netip.Addr { return c.addr(lbOctet, 2) }

// GatewayBalancer is the load balancer address of the first Gateway.
func (c Cluster) GatewayBalancer() netip.Addr { return c.addr(lbOctet, 3) }

// Location returns where the cluster is, if its name has a known place.
func (c Cluster) Location() (Location, bool) {
	l, ok := locations[c.Name]
	return l, ok
}

// Pool hands out addresses of a cluster, each at most once at a time. It is not safe for concurrent use.
type Pool struct {
	first, last netip.Addr
	next        netip.Addr
	used        map[netip.Addr]bool
}

// Pods is the pool of the cluster's pod addresses.
func (c Cluster) Pods() *Pool { return newPool(c.addr(0, 2), c.addr(lbOctet-1, 254)) }

// Balancers is the pool of the load balancer addresses that are not reserved.
func (c Cluster) Balancers() *Pool { return newPool(c.addr(lbOctet, reservedLBs), c.addr(254, 254)) }

func newPool(first, last netip.Addr) *Pool {
	return &Pool{first: first, last: last, next: first, used: map[netip.Addr]bool{}}
}

// Take returns a free address, the one longest unused, so that a late packet for a pod that is gone meets nobody.
func (p *Pool) Take() (netip.Addr, error) {
	for start, first := p.next, true; first || p.next != start; first = false {
		a := p.next
		if p.next = a.Next(); p.next.Compare(p.last) > 0 {
			p.next = p.first
		}
		if !p.used[a] {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses from %s to %s are in use", p.first, p.last)
}

// Release gives an address back.
func (p *Pool) Release(a netip.Addr) { delete(p.used, a) }
