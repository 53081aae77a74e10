package netlab

import (
	"net/netip"
	"testing"
)

func packetOf(proto byte, from, to netip.AddrPort) []byte {
	b := make([]byte, 24)
	b[0], b[9] = 0x45, proto
	f, t := from.Addr().As4(), to.Addr().As4()
	copy(b[12:], f[:])
	copy(b[16:], t[:])
	b[20], b[21], b[22], b[23] = byte(from.Port()>>8), byte(from.Port()), byte(to.Port()>>8), byte(to.Port())
	return b
}

func TestParse(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.64.0.9:40000"), netip.MustParseAddrPort("10.65.128.2:15443")
	noPorts := header{from: netip.AddrPortFrom(from.Addr(), 0), to: netip.AddrPortFrom(to.Addr(), 0)}
	v6 := make([]byte, 40)
	v6[0] = 0x60
	fragment := packetOf(6, from, to)
	fragment[7] = 1
	for name, tc := range map[string]struct {
		packet []byte
		want   header
	}{
		"tcp": {packetOf(6, from, to), header{from: from, to: to}}, "udp": {packetOf(17, from, to), header{from: from, to: to}},
		"icmp": {packetOf(1, from, to), noPorts}, "later fragment": {fragment, noPorts}, "cut in the ports": {packetOf(6, from, to)[:22], noPorts},
		"v6": {v6, header{}}, "short": {make([]byte, 19), header{}}, "empty": {nil, header{}},
	} {
		if got := parse(tc.packet); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestCuts: a cut of an endpoint takes both directions of its connections and nothing else.
func TestCuts(t *testing.T) {
	hub, router, client := netip.MustParseAddrPort("10.64.128.1:8443"), netip.MustParseAddrPort("10.64.128.2:15443"), netip.MustParseAddrPort("10.65.0.4:50000")
	for name, tc := range map[string]struct {
		cut             Match
		hub, data, back bool
	}{
		"all": {Match{}, true, true, true}, "hub": {Match{Prefix: netip.PrefixFrom(hub.Addr(), 32), Port: 8443}, true, false, false},
		"port": {Match{Port: 15443}, false, true, true}, "address": {Match{Prefix: netip.PrefixFrom(router.Addr(), 32)}, false, true, true},
		"another port": {Match{Prefix: netip.PrefixFrom(hub.Addr(), 32), Port: 6443}, false, false, false},
	} {
		p := Path{Cuts: []Match{tc.cut}}
		got := [3]bool{p.drops(header{client, hub}), p.drops(header{client, router}), p.drops(header{router, client})}
		if want := [3]bool{tc.hub, tc.data, tc.back}; got != want {
			t.Errorf("%s: drops %v, want %v", name, got, want)
		}
	}
	if (Path{}).drops(header{client, hub}) {
		t.Error("a whole path drops packets")
	}
	if !(Path{Loss: 1}).drops(header{client, hub}) {
		t.Error("a path that loses all keeps a packet")
	}
}
