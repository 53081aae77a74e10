package netlab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// Node is a cluster's node: the namespace that holds the bridge of its pods, the API server's address and the routes.
type Node struct {
	cluster plan.Cluster
	ns      *NS
}

func newNode(c plan.Cluster) (*Node, error) {
	ns, err := NewNS()
	if err != nil {
		return nil, err
	}
	n := &Node{cluster: c, ns: ns}
	err = errors.Join(
		ns.Do(func() error {
			return errors.Join(
				sysctl("ipv4/ip_forward", "1"),
				sysctl("ipv4/conf/all/send_redirects", "0"),
				sysctl("ipv4/conf/default/send_redirects", "0"),
				// Spread connections, not client addresses, over the pods of a load balancer.
				sysctl("ipv4/fib_multipath_hash_policy", "1"))
		}),
		bridge(ns, "pods"),
		configure(ns, "pods", netip.PrefixFrom(c.Node(), c.PodPrefix().Bits())))
	if err != nil {
		ns.Close()
		return nil, err
	}
	return n, nil
}

// NS is the node's namespace.
func (n *Node) NS() *NS { return n.ns }

// AddPod makes the namespace of a pod with the given address as its eth0. Closing it removes the link, once no process
// is left in it.
func (n *Node) AddPod(ip netip.Addr) (*NS, error) {
	pod, err := NewNS()
	if err != nil {
		return nil, err
	}
	// Any user may listen on any port in there, as container runtimes have it.
	err = pod.Do(func() error { return sysctl("ipv4/ip_unprivileged_port_start", "0") })
	if err == nil {
		err = n.connect(pod, ip)
	}
	if err != nil {
		pod.Close()
		return nil, fmt.Errorf("network of pod %s: %w", ip, err)
	}
	return pod, nil
}

func (n *Node) connect(pod *NS, ip netip.Addr) error {
	name := vethName(ip)
	// A link of an earlier pod with this address may still be on its way out: namespaces are freed in the background.
	if l, err := n.ns.handle.LinkByName(name); err == nil {
		_ = n.ns.handle.LinkDel(l)
	}
	if err := veth(n.ns, name, pod, "eth0"); err != nil {
		return err
	}
	if err := enslave(n.ns, name, "pods"); err != nil {
		return err
	}
	if err := configure(pod, "eth0", netip.PrefixFrom(ip, n.cluster.PodPrefix().Bits())); err != nil {
		return err
	}
	if err := route(pod, netip.MustParsePrefix("0.0.0.0/0"), "eth0", n.cluster.Node()); err != nil {
		return err
	}
	// As container runtimes do: a process without capabilities may listen on any port of its pod.
	return pod.Do(func() error { return sysctl("ipv4/ip_unprivileged_port_start", "0") })
}

// RemovePod takes a pod's link away.
func (n *Node) RemovePod(ip netip.Addr) {
	if l, err := n.ns.handle.LinkByName(vethName(ip)); err == nil {
		_ = n.ns.handle.LinkDel(l)
	}
}

func vethName(ip netip.Addr) string {
	b := ip.As4()
	return fmt.Sprintf("p%d-%d", b[2], b[3])
}

// Balance routes a load balancer's address to pods, spread by connection. Without pods the address is unreachable, so
// that clients fail at once.
func (n *Node) Balance(addr netip.Addr, pods []netip.Addr) error {
	dst := ipNet(netip.PrefixFrom(addr, 32))
	r := &netlink.Route{Dst: dst}
	l, err := n.ns.handle.LinkByName("pods")
	if err != nil {
		return err
	}
	switch len(pods) {
	case 0:
		r.Type = unix.RTN_UNREACHABLE
	case 1:
		r.LinkIndex, r.Gw = l.Attrs().Index, pods[0].AsSlice()
	default:
		for _, p := range pods {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: l.Attrs().Index, Gw: p.AsSlice()})
		}
	}
	if err := n.ns.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("route load balancer %s to %v: %w", addr, pods, err)
	}
	return nil
}

// Unbalance removes a load balancer's address.
func (n *Node) Unbalance(addr netip.Addr) {
	_ = n.ns.handle.RouteDel(&netlink.Route{Dst: ipNet(netip.PrefixFrom(addr, 32))})
}

// AddLocal lets a pod answer on a load balancer's address, DropLocal ends that.
func (n *NS) AddLocal(addr netip.Addr) error {
	if n.closed.Load() { // a closed handle would act on the caller's namespace
		return errors.New("the pod is gone")
	}
	lo, err := n.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	return n.handle.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, 32))})
}

// DropLocal undoes AddLocal.
func (n *NS) DropLocal(addr netip.Addr) {
	if n.closed.Load() {
		return
	}
	if lo, err := n.handle.LinkByName("lo"); err == nil {
		_ = n.handle.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, 32))})
	}
}
