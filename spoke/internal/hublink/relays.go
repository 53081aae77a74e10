package hublink

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

const (
	// relayHealthPort is where relays answer (chart spoke, router.yaml).
	relayHealthPort = 9091
	// askTimeout is for one answer of a relay.
	askTimeout = 500 * time.Millisecond
	// maxAnswer is more than the names of 1,000 spokes, in bytes.
	maxAnswer = 256 << 10
)

// Relays are those of this spoke's router pods.
type Relays struct {
	// Pods are the addresses of the ready router pods.
	Pods func() []netip.Addr
	// Known is closed when it has been read which there are; before, that there is none means nothing. Nil: they are known.
	Known <-chan struct{}
	// Port of the relays' health endpoint; 9091 when zero.
	Port uint16
}

// known says whether it has been read which relays there are.
func (r Relays) known() bool {
	if r.Known == nil {
		return true
	}
	select {
	case <-r.Known:
		return true
	default:
		return false
	}
}

// addresses are where the relays answer now.
func (r Relays) addresses() []netip.AddrPort {
	port := r.Port
	if port == 0 {
		port = relayHealthPort
	}
	var out []netip.AddrPort
	for _, addr := range r.Pods() {
		out = append(out, netip.AddrPortFrom(addr, port))
	}
	return out
}

// newAsker is a client for ask, and what closes its connections. It keeps them between two rounds.
func newAsker(interval time.Duration) (*http.Client, func()) {
	transport := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * interval}
	return &http.Client{Transport: transport, Timeout: askTimeout}, transport.CloseIdleConnections
}

// ask reads what a relay answers in JSON at a path.
func ask[T any](ctx context.Context, client *http.Client, relay netip.AddrPort, path string) (out T, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+relay.String()+path, nil)
	if err != nil {
		return out, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return out, fmt.Errorf("%s answers %s", relay, resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out)
	return out, err
}
