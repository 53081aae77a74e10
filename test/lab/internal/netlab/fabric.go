package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// Fabric is a lab's whole network. The namespace that NewFabric is called in becomes the client's: it reaches every
// cluster directly, without delay, and forwards nothing.
type Fabric struct {
	Nodes map[string]*Node
	// Switch carries what travels between clusters; nil when clusters are linked by a plain bridge.
	Switch *Switch
	client *NS
	wan    *NS
}

// NewFabric makes the namespaces and links of a plan. With an rtt above 0, or where links shall be broken, the clusters are
// linked by a userspace switch with half of the rtt in each direction, else by a bridge.
func NewFabric(p plan.Plan, rtt time.Duration, faults bool) (*Fabric, error) {
	f := &Fabric{Nodes: map[string]*Node{}}
	err := f.build(p, rtt, faults)
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Fabric) build(p plan.Plan, rtt time.Duration, faults bool) (err error) {
	if f.client, err = Current(); err != nil {
		return err
	}
	if lo, err := f.client.handle.LinkByName("lo"); err != nil {
		return err
	} else if err := f.client.handle.LinkSetUp(lo); err != nil {
		return err
	}
	for _, c := range p.Clusters {
		node, err := newNode(c)
		if err != nil {
			return fmt.Errorf("node of %s: %w", c.Name, err)
		}
		f.Nodes[c.Name] = node
		if err := f.linkClient(node); err != nil {
			return fmt.Errorf("link %s to the client: %w", c.Name, err)
		}
	}
	if rtt > 0 || faults {
		return f.linkSwitch(p, rtt)
	}
	return f.linkBridge(p)
}

// Close removes the network.
func (f *Fabric) Close() {
	if f.Switch != nil {
		f.Switch.Close()
	}
	for _, n := range f.Nodes {
		n.ns.Close()
	}
	for _, ns := range []*NS{f.client, f.wan} {
		if ns != nil {
			ns.Close()
		}
	}
}

func (f *Fabric) linkClient(n *Node) error {
	client, node := n.cluster.ClientLink()
	name := fmt.Sprintf("c%d", n.cluster.Index)
	if err := veth(f.client, name, n.ns, "client"); err != nil {
		return err
	}
	if err := configure(n.ns, "client", node); err != nil {
		return err
	}
	if err := configure(f.client, name, client); err != nil {
		return err
	}
	return route(f.client, n.cluster.Prefix(), name, node.Addr())
}

func (f *Fabric) linkBridge(p plan.Plan) (err error) {
	if f.wan, err = NewNS(); err != nil {
		return err
	}
	if err := bridge(f.wan, "wan"); err != nil {
		return err
	}
	for _, c := range p.Clusters {
		n, name := f.Nodes[c.Name], fmt.Sprintf("w%d", c.Index)
		if err := veth(f.wan, name, n.ns, "wan"); err != nil {
			return err
		}
		if err := enslave(f.wan, name, "wan"); err != nil {
			return err
		}
		if err := configure(n.ns, "wan", c.WAN()); err != nil {
			return err
		}
		for _, other := range p.Clusters {
			if other.Index != c.Index {
				if err := route(n.ns, other.Prefix(), "wan", other.WAN().Addr()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *Fabric) linkSwitch(p plan.Plan, rtt time.Duration) error {
	f.Switch = NewSwitch(p, Path{Delay: rtt / 2})
	for _, c := range p.Clusters {
		n := f.Nodes[c.Name]
		tun, err := openTUN(n.ns, "wan")
		if err != nil {
			return fmt.Errorf("TUN device of %s (needed by --rtt and --faults): %w", c.Name, err)
		}
		if err := configure(n.ns, "wan", netip.PrefixFrom(c.WAN().Addr(), 32)); err != nil {
			return err
		}
		for _, other := range p.Clusters {
			if other.Index != c.Index {
				if err := route(n.ns, other.Prefix(), "wan", netip.Addr{}); err != nil {
					return err
				}
			}
		}
		f.Switch.Attach(c.Index, tun)
	}
	return nil
}

// veth makes a pair of devices, one end in each namespace.
func veth(at *NS, name string, peer *NS, peerName string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.file.Fd())}
	if err := at.handle.LinkAdd(l); err != nil {
		return fmt.Errorf("veth %s: %w", name, err)
	}
	return nil
}

func bridge(ns *NS, name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := ns.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return configure(ns, name)
}

func enslave(ns *NS, name, master string) error {
	l, err := ns.handle.LinkByName(name)
	if err != nil {
		return err
	}
	m, err := ns.handle.LinkByName(master)
	if err != nil {
		return err
	}
	if err := ns.handle.LinkSetMaster(l, m); err != nil {
		return fmt.Errorf("attach %s to %s: %w", name, master, err)
	}
	return ns.handle.LinkSetUp(l)
}

// configure gives a device its addresses and sets it up.
func configure(ns *NS, name string, addrs ...netip.Prefix) error {
	l, err := ns.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	for _, a := range addrs {
		if err := ns.handle.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("address %s on %s: %w", a, name, err)
		}
	}
	return ns.handle.LinkSetUp(l)
}

func route(ns *NS, to netip.Prefix, dev string, via netip.Addr) error {
	l, err := ns.handle.LinkByName(dev)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to)}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = unix.RT_SCOPE_LINK
	}
	if err := ns.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s dev %s: %w", to, dev, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
