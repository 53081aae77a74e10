package liveness

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// maxLookups bounds how many lookups run at once, lookupTimeout how long one may take.
	maxLookups    = 8
	lookupTimeout = 5 * time.Second
)

// name is a host name that a report, or the hub's own configuration, mentions.
type name struct {
	lookup
	due     time.Time
	running bool
}

// resolveDue starts the lookups that are due, as many as may run, and forgets names that nobody mentions any more.
func (o *Observer) resolveDue(ctx context.Context, running *sync.WaitGroup) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wanted := o.wantedNames()
	for host, n := range o.names {
		if !wanted[host] && !n.running {
			delete(o.names, host)
		}
	}
	now, active := o.opts.Clock.Now(), 0
	for _, n := range o.names {
		if n.running {
			active++
		}
	}
	for host := range wanted {
		n := o.names[host]
		if n == nil {
			n = &name{}
			o.names[host] = n
		}
		if active >= maxLookups {
			return
		}
		if n.running || now.Before(n.due) {
			continue
		}
		n.running = true
		active++
		running.Go(func() { o.resolve(ctx, host) })
	}
}

func (o *Observer) wantedNames() map[string]bool {
	wanted := map[string]bool{}
	for spoke, s := range o.spokes {
		routers := s.routers
		if r := o.reports[spoke]; r != nil {
			routers = nil
			if r.Spec.Spoke == spoke {
				routers = r.Spec.Routers
			}
		}
		for _, a := range routers {
			wanted[a.Host] = true
		}
	}
	for _, at := range o.opts.HubAddresses {
		host, _, _ := hostPort(at)
		wanted[host] = true
	}
	for host := range wanted {
		if _, err := netip.ParseAddr(host); err == nil || !isHostName(host) {
			delete(wanted, host)
		}
	}
	return wanted
}

// resolve looks one name up. A failure keeps the last good answer.
func (o *Observer) resolve(ctx context.Context, host string) {
	lctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := o.opts.Resolver.LookupNetIP(lctx, "ip", host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.names[host]
	n.running, n.done = false, true
	n.due = o.opts.Clock.Now().Add(o.opts.ResolveEvery)
	if err != nil {
		n.failed = err.Error()
		o.opts.Log.Info("router address does not resolve", "host", host, "error", err)
	} else {
		n.failed = ""
		n.take(addrs, o.policy)
	}
	o.policy.Hub = o.hubAddrs()
	for spoke := range o.spokes {
		o.judge(spoke)
	}
	o.wake() // another name may wait for the free place
}

// take replaces the answer, unless none of the new addresses may be used while the old ones could: a name that suddenly
// points at loopback is a mistake or an attack, and no reason to lose a router that works.
func (n *name) take(addrs []netip.Addr, p Policy) {
	addrs = slices.Clone(addrs)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	usable := func(a netip.Addr) bool { return p.Refuse(netip.AddrPortFrom(a, 1)) == "" }
	if !slices.ContainsFunc(addrs, usable) && slices.ContainsFunc(n.addrs, usable) {
		n.failed = "the new answer holds no usable address"
		return
	}
	n.addrs = addrs
}

// hubAddrs are the hub's own addresses, as far as they are known.
func (o *Observer) hubAddrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, at := range o.opts.HubAddresses {
		host, port, _ := hostPort(at)
		if a, err := netip.ParseAddr(host); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), port))
			continue
		}
		if n := o.names[host]; n != nil {
			for _, a := range n.addrs {
				out = append(out, netip.AddrPortFrom(a, port))
			}
		}
	}
	return out
}

func hostPort(at string) (string, uint16, error) {
	host, text, err := net.SplitHostPort(at)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return host, uint16(port), err
}

// wake has the loop look for names to resolve.
func (o *Observer) wake() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}
