package delta

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Defaults of Options.
const (
	DefaultChunkBytes    = 1 << 20
	DefaultChunkScopes   = 100
	DefaultInflightBytes = 8 << 20
	// MaxMessageBytes is the receive limit that servers and clients should set: a client that resumes 100,000 names
	// sends about 6 MB.
	MaxMessageBytes = 64 << 20
)

// Options of a Server.
type Options struct {
	// View returns what a client sees, at the stream's start; release, if not nil, is called at its end. An error ends
	// the stream and should be a gRPC status. The node is what the client says of itself: decide by the connection.
	View func(ctx context.Context, node *corev3.Node) (v *View, release func(), err error)
	// Await, if set, is called with a stream's first request and may block: the stream begins, and its View is taken, when it returns.
	Await func(ctx context.Context, first *discoveryv3.DeltaDiscoveryRequest) error
	// Observe is told what happens.
	Observe Observer
	// Identifier is sent as control_plane.identifier with each response; empty: none is sent.
	Identifier string
	// Identify, if set, gives the identifier of each response instead; see Tell.
	Identify func() string
	// ChunkBytes, ChunkScopes and InflightBytes bound a response and what is sent and not yet acknowledged on one
	// stream; 0 is the default.
	ChunkBytes, ChunkScopes, InflightBytes int
}

// Server serves ADS and SDS, incremental variant.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	secrets secretServer
	opts    Options

	mu      sync.Mutex
	lastID  uint64
	streams map[*stream]struct{}
}

type secretServer struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	server *Server
}

// NewServer makes a server; register it with Register.
func NewServer(o Options) *Server {
	if o.ChunkBytes == 0 {
		o.ChunkBytes = DefaultChunkBytes
	}
	if o.ChunkScopes == 0 {
		o.ChunkScopes = DefaultChunkScopes
	}
	if o.InflightBytes == 0 {
		o.InflightBytes = DefaultInflightBytes
	}
	s := &Server{opts: o, streams: map[*stream]struct{}{}}
	s.secrets.server = s
	return s
}

// Register adds ADS and SDS to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	secretv3.RegisterSecretDiscoveryServiceServer(g, &s.secrets)
}

// DeltaAggregatedResources serves one ADS stream.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g, "")
}

// DeltaSecrets serves one SDS stream: the secrets of the client's view.
func (s *secretServer) DeltaSecrets(g secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.server.serve(g, SecretType)
}

// transport is what both services' streams have.
type transport interface {
	Context() context.Context
	Send(*discoveryv3.DeltaDiscoveryResponse) error
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
}

// stream is one open stream. Its loop is the only one that touches the session.
type stream struct {
	transport transport
	inbox     inbox
	wake      chan struct{}
	flush     chan chan struct{}
	waiters   []waiter
	done      chan struct{}
	answered  func(typeURL string, took time.Duration) // nil: nobody asks
	sent      map[string]time.Time                     // by nonce, of responses that are not answered
	identify  func() string
	told      string // the identifier of the last response
}

// waiter waits until a mark is settled.
type waiter struct {
	mark uint64
	done chan struct{}
}

// inbox takes requests from the receiving goroutine without ever blocking it: a client that does not read while it
// writes must not lock up with a server that does not read while it writes. It is bounded, since a client may flood it
// while it does not read.
type inbox struct {
	mu       sync.Mutex
	requests []*discoveryv3.DeltaDiscoveryRequest
	weight   int
	limit    int
	err      error
	ready    chan struct{}
}

// maxInbox bounds what a client may have said that the server has not looked at, in requests and the names in them.
const maxInbox = 4 << 20

// put returns why no more is taken.
func (i *inbox) put(r *discoveryv3.DeltaDiscoveryRequest, err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.weight += 1 + len(r.GetInitialResourceVersions()) + len(r.GetResourceNamesSubscribe()) + len(r.GetResourceNamesUnsubscribe())
	switch {
	case i.err != nil:
	case err != nil:
		i.err = err
	case i.weight > i.limit:
		i.err = status.Error(codes.ResourceExhausted, "too many requests while the responses are not read")
		i.requests = nil
	default:
		i.requests = append(i.requests, r)
	}
	select {
	case i.ready <- struct{}{}:
	default:
	}
	return i.err
}

func (i *inbox) take() ([]*discoveryv3.DeltaDiscoveryRequest, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.requests
	i.requests, i.weight = nil, 0
	return r, i.err
}

func (s *Server) serve(g transport, only string) (err error) {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if s.opts.Await != nil {
		if err := s.opts.Await(g.Context(), first); err != nil {
			return err
		}
	}
	view, release, err := s.opts.View(g.Context(), first.GetNode())
	if err != nil {
		return err
	}
	if release != nil {
		defer release()
	}
	st := &stream{transport: g, wake: make(chan struct{}, 1), flush: make(chan chan struct{}), done: make(chan struct{})}
	st.inbox.ready, st.inbox.limit = make(chan struct{}, 1), maxInbox
	id := Stream{ID: s.add(st), Node: first.GetNode()}
	defer s.drop(st)
	if observe := s.opts.Observe.Answered; observe != nil {
		st.sent = map[string]time.Time{}
		st.answered = func(typeURL string, took time.Duration) { observe(id, typeURL, took) }
	}
	if s.opts.Observe.Opened != nil {
		s.opts.Observe.Opened(id)
	}
	if s.opts.Observe.Closed != nil {
		defer func() { s.opts.Observe.Closed(id, err) }()
	}
	view = narrow(view, only)
	for _, t := range view.Tables {
		defer t.Watch(st.wake)()
	}
	if err := st.inbox.put(first, nil); err != nil {
		return err
	}
	go func() { // ends when Recv fails, at the latest when this handler returns and gRPC cancels the stream
		for {
			r, err := g.Recv()
			if st.inbox.put(r, err) != nil {
				return
			}
		}
	}()
	limits := limits{s.opts.ChunkBytes, s.opts.ChunkScopes, s.opts.InflightBytes}
	st.identify = s.opts.Identify
	if st.identify == nil {
		st.identify = func() string { return s.opts.Identifier }
	}
	return st.loop(newSession(view, limits, s.opts.Observe.bind(id)), view.Done)
}

func narrow(v *View, only string) *View {
	if only == "" {
		return v
	}
	out := &View{Done: v.Done}
	for _, t := range v.Tables {
		if t.typeURL == only {
			out.Tables = append(out.Tables, t)
		}
	}
	return out
}

func (st *stream) loop(s *session, done <-chan struct{}) error {
	for {
		select {
		case <-done: // even when there is more to send
			return errViewDone
		default:
		}
		if err := st.takeRequests(s); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.changed()
		st.flushed(s)
		if r := st.next(s); r != nil {
			if st.answered != nil {
				st.sent[r.GetNonce()] = time.Now()
			}
			if err := st.transport.Send(r); err != nil {
				return err
			}
			continue
		}
		st.flushed(s) // what was to be judged is
		select {
		case <-st.transport.Context().Done():
			return status.FromContextError(st.transport.Context().Err()).Err()
		case <-done:
			return errViewDone
		case w := <-st.flush:
			st.waiters = append(st.waiters, waiter{s.mark(), w})
		case <-st.inbox.ready:
		case <-st.wake:
		}
	}
}

// next is the next response, with the identifier: one that says nothing but that, when it is another than the client was told last.
func (st *stream) next(s *session) *discoveryv3.DeltaDiscoveryResponse {
	identifier := st.identify() // before what it is said of
	r := s.next()
	if r == nil && st.told != "" && st.told != identifier {
		r = s.nothing()
	}
	if r != nil && identifier != "" {
		r.ControlPlane, st.told = &corev3.ControlPlane{Identifier: identifier}, identifier
	}
	return r
}

var errViewDone = status.Error(codes.Aborted, "the view has changed: connect again")

// takeRequests hands what has come to the session.
func (st *stream) takeRequests(s *session) error {
	requests, err := st.inbox.take()
	for _, r := range requests {
		if at, ok := st.sent[r.GetResponseNonce()]; ok {
			delete(st.sent, r.GetResponseNonce())
			st.answered(r.GetTypeUrl(), time.Since(at))
		}
		s.request(r)
	}
	return err
}

// flushed tells those who waited for what is settled.
func (st *stream) flushed(s *session) {
	for len(st.waiters) > 0 && s.ledger.settled(st.waiters[0].mark) { // in the order of their marks
		close(st.waiters[0].done)
		st.waiters = st.waiters[1:]
	}
}

func (s *Server) add(st *stream) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	s.streams[st] = struct{}{}
	return s.lastID
}

func (s *Server) drop(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	close(st.done)
}

// Tell sends each client the identifier that Identify gives now, if it is another than the client was told last.
func (s *Server) Tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		select {
		case st.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// Settle waits until every stream that is open now has answered for all that its tables held when Settle was called, or for
// what came after it under the same name, or has ended. What changes later is not waited for: a fleet that never rests settles
// too. Streams that lag are named in the error only by their number.
func (s *Server) Settle(ctx context.Context) error {
	s.mu.Lock()
	open := make([]*stream, 0, len(s.streams))
	for st := range s.streams {
		open = append(open, st)
	}
	s.mu.Unlock()
	var waits []chan struct{}
	var of []*stream
	for _, st := range open {
		w := make(chan struct{})
		select {
		case st.flush <- w:
			waits, of = append(waits, w), append(of, st)
		case <-st.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, w := range waits {
		select {
		case <-w:
		case <-of[i].done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
