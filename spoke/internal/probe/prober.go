package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Peer is one address of one spoke's router.
type Peer struct {
	Spoke    string
	Hostname string // the DNS name that its certificate must have
	Address  string // host:port
}

// Options of a Prober.
type Options struct {
	// TLS returns the configuration for a connection to a peer that must have the DNS name; nil while there are no
	// certificates, and then nothing is probed and nobody is blamed.
	TLS         func(hostname string) *tls.Config
	Interval    time.Duration // between two probes of a peer, +-20 %; 2 s by default
	Timeout     time.Duration // of one probe; 1.5 s by default
	Misses      int           // in a row until a peer counts as unreachable; 2 by default
	Concurrency int           // probes at once; 32 by default
	Changed     func()        // called after a peer became unreachable or reachable
	Observe     func(p Peer, err error, took time.Duration)
	Log         *slog.Logger
}

// errStopping is the answer of a router that has announced its stop: it still serves, and shall get nothing new.
var errStopping = errors.New("/healthz answered 503: the router stops")

// Prober keeps one goroutine and one connection for each peer.
type Prober struct {
	opts  Options
	slots chan struct{}

	mu    sync.Mutex
	peers map[Peer]*target
	sure  bool // all peers were judged at one moment
	wg    sync.WaitGroup
	ctx   context.Context // of Run; peers are probed only while it lives
}

type target struct {
	stop   context.CancelFunc
	misses int
	down   bool
	judged bool // it has answered, or missed often enough
}

// New makes a Prober; Run starts it.
func New(opts Options) *Prober {
	set(&opts.Interval, 2*time.Second)
	set(&opts.Timeout, 1500*time.Millisecond)
	set(&opts.Misses, 2)
	set(&opts.Concurrency, 32)
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	if opts.Observe == nil {
		opts.Observe = func(Peer, error, time.Duration) {}
	}
	return &Prober{opts: opts, slots: make(chan struct{}, opts.Concurrency), peers: map[Peer]*target{}}
}

func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Run probes until the context ends, and returns when no probe runs any more.
func (p *Prober) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	for peer, t := range p.peers {
		p.start(peer, t) //nolint:contextcheck // it takes the context just set
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.wg.Wait()
	return nil
}

// SetPeers says whom to probe. A peer that stays keeps what is known of it; one that goes is not unreachable any more, and is
// judged anew should it come back.
func (p *Prober) SetPeers(peers []Peer) {
	if p.replacePeers(peers) {
		p.opts.Changed()
	}
}

// replacePeers says whether one that was unreachable is gone.
func (p *Prober) replacePeers(peers []Peer) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := map[Peer]bool{}
	for _, peer := range peers {
		want[peer] = true
		if p.peers[peer] == nil {
			t := &target{}
			p.peers[peer] = t
			p.start(peer, t)
		}
	}
	for peer, t := range p.peers {
		if want[peer] {
			continue
		}
		if t.stop != nil {
			t.stop()
		}
		changed = changed || t.down
		delete(p.peers, peer)
	}
	return changed
}

// start needs the lock.
func (p *Prober) start(peer Peer, t *target) {
	if p.ctx == nil || p.ctx.Err() != nil || t.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(p.ctx)
	t.stop = stop
	p.wg.Go(func() { p.watch(ctx, peer, t) })
}

// Unreachable are the peers that missed too often.
func (p *Prober) Unreachable() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Peer
	for peer, t := range p.peers {
		if t.down {
			out = append(out, peer)
		}
	}
	return out
}

// UnreachableSpokes are the spokes of which no address is reachable, sorted.
func (p *Prober) UnreachableSpokes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	down := map[string]bool{}
	for peer, t := range p.peers {
		if d, seen := down[peer.Spoke]; !seen || d {
			down[peer.Spoke] = t.down
		}
	}
	maps.DeleteFunc(down, func(_ string, d bool) bool { return !d })
	return slices.Sorted(maps.Keys(down))
}

// Sure says whether this router has made up its mind: since its start it has once known of every peer whether it is
// reachable. Before, that nobody is unreachable means nothing.
func (p *Prober) Sure() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sure || len(p.peers) == 0 {
		return p.sure
	}
	for _, t := range p.peers {
		if !t.judged {
			return false
		}
	}
	p.sure = true
	return true
}

// Peers is how many addresses are probed.
func (p *Prober) Peers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.peers)
}

func (p *Prober) watch(ctx context.Context, peer Peer, t *target) {
	transport := p.transport(peer)
	defer transport.CloseIdleConnections()
	// The first probe comes soon: a router that starts should know its peers before they are asked for.
	timer := time.NewTimer(time.Duration(rand.Int64N(int64(p.opts.Interval)/4 + 1)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		p.probe(ctx, transport, peer, t)
		timer.Reset(jitter(p.opts.Interval))
	}
}

func jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(rand.Int64N(int64(d)*2/5+1))
}

func (p *Prober) probe(ctx context.Context, transport *http2.Transport, peer Peer, t *target) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return
	}
	if p.opts.TLS(peer.Hostname) == nil {
		return
	}
	began := time.Now()
	err := p.ask(ctx, transport, peer)
	if errors.Is(err, errStopping) {
		// Behind one address there may be several routers, of which one stops: the next connection tells.
		transport.CloseIdleConnections()
		err = p.ask(ctx, transport, peer)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		transport.CloseIdleConnections()
	}
	p.opts.Observe(peer, err, time.Since(began))
	p.judge(peer, t, err)
}

// judge counts: several misses in a row make a peer unreachable, one answer makes it reachable. Who says itself that it stops
// need not miss twice.
func (p *Prober) judge(peer Peer, t *target, err error) {
	p.mu.Lock()
	was := t.down
	if err == nil {
		t.misses, t.down = 0, false
	} else {
		t.misses++
		t.down = t.misses >= p.opts.Misses || errors.Is(err, errStopping)
	}
	t.judged = t.judged || err == nil || t.down
	now := t.down
	p.mu.Unlock()
	if now == was {
		return
	}
	if now {
		p.opts.Log.Warn("a peer router is unreachable", "spoke", peer.Spoke, "address", peer.Address, "error", err)
	} else {
		p.opts.Log.Info("a peer router is reachable again", "spoke", peer.Spoke, "address", peer.Address)
	}
	p.opts.Changed()
}

func (p *Prober) ask(ctx context.Context, transport *http2.Transport, peer Peer) error {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+peer.Hostname+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		return errStopping
	default:
		return fmt.Errorf("/healthz answered %d", resp.StatusCode)
	}
}

func (p *Prober) transport(peer Peer) *http2.Transport {
	return &http2.Transport{DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		cfg := p.opts.TLS(peer.Hostname)
		if cfg == nil {
			return nil, fmt.Errorf("no certificate to reach %s with", peer.Hostname)
		}
		cfg.NextProtos = []string{"h2"}
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: p.opts.Timeout}, Config: cfg}
		return dialer.DialContext(ctx, network, peer.Address)
	}}
}
