package liveness

import (
	"fmt"
	"net/netip"
	"slices"
)

// Policy says which router addresses may be believed.
type Policy struct {
	// Allow, when not empty, lists the only networks that routers may be in.
	Allow []netip.Prefix
	// Hub are the hub's own addresses with their ports. The port counts: a hub that lives in a spoke's cluster may share
	// its address with that cluster's router.
	Hub []netip.AddrPort
}

// Refuse returns why an address is not to be used, or "".
func (p Policy) Refuse(at netip.AddrPort) string {
	a := at.Addr()
	if a.Zone() != "" {
		return "it carries a zone"
	}
	// An IPv4 address in IPv6 clothes is judged as what it is.
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return "it is not an IP address"
	case a.IsUnspecified():
		return "it is unspecified"
	case a.IsLoopback():
		return "it is loopback"
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast(), a.IsInterfaceLocalMulticast():
		return "it is link-local"
	case a.IsMulticast():
		return "it is multicast"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is broadcast"
	case at.Port() == 0:
		return "it has no port"
	case slices.Contains(p.Hub, netip.AddrPortFrom(a, at.Port())):
		return "it is the hub's own"
	case len(p.Allow) > 0 && !slices.ContainsFunc(p.Allow, func(n netip.Prefix) bool { return n.Contains(a) }):
		return fmt.Sprintf("it is in none of the allowed networks %v", p.Allow)
	}
	return ""
}
