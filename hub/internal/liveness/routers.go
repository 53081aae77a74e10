package liveness

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// maxAnswers bounds how many addresses of one host name are used.
const maxAnswers = 8

// lookup is what is known of a host name; the zero value: nothing yet.
type lookup struct {
	// addrs of the last good answer, sorted: resolvers rotate them, and an order that changes would change the wire.
	addrs []netip.Addr
	// failed is why the last attempt gave no answer, or "".
	failed string
	done   bool
}

// judge splits the addresses of a report into those that are used and those that are refused.
func judge(p Policy, reported []v1alpha1.RouterAddress, names func(host string) lookup) (k Knowledge) {
	for _, r := range reported {
		addrs, reason := judgeOne(p, r, names)
		if reason != "" {
			k.Refused = append(k.Refused, Refusal{Address: r, Reason: reason})
		}
		if len(addrs) > 0 {
			k.Accepted = append(k.Accepted, r)
		}
		for _, a := range addrs {
			if !slices.Contains(k.Routers, a) {
				k.Routers = append(k.Routers, a)
			}
		}
	}
	return k
}

func judgeOne(p Policy, r v1alpha1.RouterAddress, names func(string) lookup) (good []netip.AddrPort, reason string) {
	if r.Port < 1 || r.Port > 65535 {
		return nil, "its port is not between 1 and 65535"
	}
	port := uint16(r.Port)
	if a, err := netip.ParseAddr(r.Host); err == nil {
		at := netip.AddrPortFrom(a, port)
		if reason := p.Refuse(at); reason != "" {
			return nil, reason
		}
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, ""
	}
	if !isHostName(r.Host) {
		return nil, "it is neither an IP address nor a DNS name"
	}
	l := names(r.Host)
	if len(l.addrs) == 0 {
		switch {
		case !l.done:
			return nil, "it is not resolved yet"
		case l.failed != "":
			return nil, "it does not resolve: " + l.failed
		}
		return nil, "it resolves to no address"
	}
	for _, a := range l.addrs {
		at := netip.AddrPortFrom(a.Unmap(), port)
		if why := p.Refuse(at); why != "" {
			reason = fmt.Sprintf("it resolves to %s: %s", a, why)
			continue
		}
		if len(good) < maxAnswers {
			good = append(good, at)
		}
	}
	return good, reason
}

func isHostName(host string) bool {
	return len(validation.IsDNS1123Subdomain(strings.ToLower(strings.TrimSuffix(host, ".")))) == 0
}
