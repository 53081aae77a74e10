package delta

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Back-off between streams: doubled after each failure, with full jitter, reset by a stream that got a response. It is the
// only one: gRPC's own, of up to two minutes, begins anew with each attempt. A server that refuses the client is left
// alone for longer than one that is away.
const (
	minBackoff    = 100 * time.Millisecond
	maxBackoff    = 4 * time.Second
	refusedPause  = 15 * time.Second
	connectionTry = 5 * time.Second // how long an attempt waits for a connection, which gRPC dials every 1-2 s meanwhile
)

// Update is one response, as a Client hands it to its owner.
type Update struct {
	// Type URL of all resources of the update.
	Type string
	// Upsert are new or changed resources; Needs are not set.
	Upsert []Resource
	// Remove are names that the server has withdrawn.
	Remove []string
	// Synced: with this update the client has all of the type that the server's view held when the client subscribed.
	Synced bool
	// Identifier is the server's control_plane.identifier.
	Identifier string
}

// ClientOptions of a Client.
type ClientOptions struct {
	// Node is sent with the first request of each stream.
	Node *corev3.Node
	// Seen, if set, is what the client has seen of the server, told with the node as SeenField; "" is not told.
	Seen func() string
	// Types to subscribe to, in this order.
	Types []string
	// Names to subscribe to, by type; a type that is not here is subscribed to by wildcard.
	Names map[string][]string
	// Held returns what the client holds of a type, name -> version, at the start of a stream. The server resends none
	// of it. It is called again for each stream.
	Held func(typeURL string) map[string]string
	// Apply takes a response in. An error refuses it (NACK) with the error's text. Apply runs on the stream's
	// goroutine: the next response waits for it.
	Apply func(ctx context.Context, u Update) error
	// Connected and Disconnected, if set, are told of the stream: Connected at its first response.
	Connected    func()
	Disconnected func(error)
}

// Client follows a delta ADS server: it connects, subscribes, applies, acknowledges, and comes back.
type Client struct {
	conn grpc.ClientConnInterface
	opts ClientOptions
	try  time.Duration // how long an attempt waits for a connection
}

// NewClient makes a client over a connection; Run drives it.
func NewClient(conn grpc.ClientConnInterface, o ClientOptions) *Client {
	return &Client{conn: conn, opts: o, try: connectionTry}
}

// Run follows the server until the context ends, and returns the context's error.
func (c *Client) Run(ctx context.Context) error {
	backoff := minBackoff
	for {
		got, err := c.stream(ctx)
		if got {
			backoff = minBackoff
		}
		if c.opts.Disconnected != nil {
			c.opts.Disconnected(err)
		}
		pause := time.NewTimer(rand.N(backoff) + minBackoff/2)
		limit := maxBackoff
		if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
			limit = refusedPause
		}
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
		backoff = min(2*backoff, limit)
	}
}

// open opens a stream once there is a connection.
func (c *Client) open(ctx context.Context, cancel func()) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, error) {
	if conn, ok := c.conn.(interface{ ResetConnectBackoff() }); ok {
		conn.ResetConnectBackoff()
	}
	giveUp := time.AfterFunc(c.try, cancel)
	defer giveUp.Stop()
	return discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true),
		grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes))
}

// stream runs one stream to its end. It reports whether a response came.
func (c *Client) stream(parent context.Context) (got bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	s, err := c.open(ctx, cancel)
	if err != nil {
		return false, fmt.Errorf("open stream: %w", err)
	}
	for i, t := range c.opts.Types {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: []string{"*"}}
		if names, ok := c.opts.Names[t]; ok {
			r.ResourceNamesSubscribe = names
		}
		if i == 0 {
			r.Node = c.node()
		}
		if c.opts.Held != nil {
			r.InitialResourceVersions = maps.Clone(c.opts.Held(t))
		}
		if err := s.Send(r); err != nil {
			break // Recv has the status
		}
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return got, err
		}
		if !got {
			got = true
			if c.opts.Connected != nil {
				c.opts.Connected()
			}
		}
		ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if err := c.apply(ctx, r); err != nil {
			if ctx.Err() != nil {
				return got, ctx.Err()
			}
			ack.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		}
		if err := s.Send(ack); err != nil {
			continue // Recv has the status
		}
	}
}

// node is the node as a stream that begins now tells it.
func (c *Client) node() *corev3.Node {
	if c.opts.Seen == nil {
		return c.opts.Node
	}
	n := proto.CloneOf(c.opts.Node)
	if seen := c.opts.Seen(); seen != "" {
		if n.Metadata == nil {
			n.Metadata = &structpb.Struct{}
		}
		if n.Metadata.Fields == nil {
			n.Metadata.Fields = map[string]*structpb.Value{}
		}
		n.Metadata.Fields[SeenField] = structpb.NewStringValue(seen)
	}
	return n
}

// SeenBy is what a client says that it has seen, "" if it says nothing.
func SeenBy(n *corev3.Node) string { return n.GetMetadata().GetFields()[SeenField].GetStringValue() }

func (c *Client) apply(ctx context.Context, r *discoveryv3.DeltaDiscoveryResponse) error {
	u := Update{
		Type: r.GetTypeUrl(), Remove: r.GetRemovedResources(), Synced: r.GetSystemVersionInfo() == Synced,
		Identifier: r.GetControlPlane().GetIdentifier(),
	}
	for _, res := range r.GetResources() {
		body := res.GetResource()
		if body.GetTypeUrl() != r.GetTypeUrl() {
			return fmt.Errorf("resource %q is a %q in a response of %q", res.GetName(), body.GetTypeUrl(), r.GetTypeUrl())
		}
		if v := Hash(body.GetValue()); v != res.GetVersion() {
			return fmt.Errorf("resource %q says version %q and is %q", res.GetName(), res.GetVersion(), v)
		}
		u.Upsert = append(u.Upsert, Resource{Name: res.GetName(), Version: res.GetVersion(), Body: body})
	}
	return c.opts.Apply(ctx, u)
}
