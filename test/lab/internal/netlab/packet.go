package netlab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// header is what of a packet decides where it goes and whether it passes.
type header struct{ from, to netip.AddrPort }

// parse reads an IPv4 packet. Addresses are not valid for anything else; ports are 0 where there are none to read: neither
// TCP nor UDP, or a later fragment (nothing in a lab sends fragments).
func parse(b []byte) header {
	if len(b) < 20 || b[0]>>4 != 4 {
		return header{}
	}
	var from, to uint16
	at := int(b[0]&0xf) * 4
	first := binary.BigEndian.Uint16(b[6:8])&0x1fff == 0
	if proto := b[9]; first && (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) && len(b) >= at+4 {
		from, to = binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
	}
	return header{
		from: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), from),
		to:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), to),
	}
}
