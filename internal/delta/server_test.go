package delta

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func text(t testing.TB, name, body string, needs ...Ref) Resource {
	t.Helper()
	return made(t, name, wrapperspb.String(body), needs...)
}

func made(t testing.TB, name string, m proto.Message, needs ...Ref) Resource {
	t.Helper()
	r, err := NewResource(name, m, needs...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serve runs a server over an in-memory connection.
func serve(t testing.TB, o Options) *grpc.ClientConn {
	t.Helper()
	return serveWith(t, func(g *grpc.Server) { NewServer(o).Register(g) })
}

func serveWith(t testing.TB, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessageBytes))
	register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); g.Stop(); <-done })
	return conn
}

func viewOf(tables ...*Table) func(context.Context, *corev3.Node) (*View, func(), error) {
	return func(context.Context, *corev3.Node) (*View, func(), error) { return &View{Tables: tables}, nil, nil }
}

// wire is a client that does only what it is told.
type wire struct {
	t testing.TB
	s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func dial(t testing.TB, conn *grpc.ClientConn) *wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &wire{t: t, s: s}
}

func (w *wire) send(r *discoveryv3.DeltaDiscoveryRequest) {
	w.t.Helper()
	if err := w.s.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) subscribe(typeURL string, names ...string) {
	w.t.Helper()
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

// next reads a response, and checks that it is of the type and holds the resources and removals given ("-name").
func (w *wire) next(typeURL string, want ...string) *discoveryv3.DeltaDiscoveryResponse {
	w.t.Helper()
	r, err := w.s.Recv()
	if err != nil {
		w.t.Fatalf("recv: %v, want %s %v", err, typeURL, want)
	}
	var got []string
	for _, res := range r.GetResources() {
		got = append(got, res.GetName())
	}
	for _, n := range r.GetRemovedResources() {
		got = append(got, "-"+n)
	}
	slices.Sort(got)
	slices.Sort(want)
	if r.GetTypeUrl() != typeURL || !slices.Equal(got, want) {
		w.t.Fatalf("got %s %v, want %s %v", short(r.GetTypeUrl()), got, short(typeURL), want)
	}
	return r
}

func short(typeURL string) string { return typeURL[strings.LastIndex(typeURL, ".")+1:] }

func (w *wire) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	w.t.Helper()
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

func (w *wire) nack(r *discoveryv3.DeltaDiscoveryResponse) {
	w.t.Helper()
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: "no"}})
}

func TestWildcardFollowsChanges(t *testing.T) {
	for _, names := range [][]string{nil, {"*"}} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			tab := NewTable(ClusterType)
			tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, nil)
			w := dial(t, serve(t, Options{View: viewOf(tab), Identifier: "hub-1"}))
			w.subscribe(ClusterType, names...)
			first := w.next(ClusterType, "a", "b")
			if first.GetSystemVersionInfo() != Synced || first.GetControlPlane().GetIdentifier() != "hub-1" {
				t.Errorf("first response: %v", first)
			}
			w.ack(first)
			tab.Apply([]Resource{text(t, "a", "1"), text(t, "c", "1")}, nil) // a is as it was
			w.ack(w.next(ClusterType, "c"))
			tab.Apply(nil, []string{"b", "unknown"})
			w.ack(w.next(ClusterType, "-b"))
		})
	}
}

func TestAnEmptyViewAnswersOnce(t *testing.T) {
	w := dial(t, serve(t, Options{View: viewOf(NewTable(ListenerType))}))
	w.subscribe(ListenerType)
	if r := w.next(ListenerType); r.GetSystemVersionInfo() != Synced {
		t.Errorf("not marked: %v", r)
	}
}

func TestByName(t *testing.T) {
	tab := NewTable(SecretType)
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, nil)
	w := dial(t, serve(t, Options{View: viewOf(tab)}))
	w.subscribe(SecretType, "a")
	w.ack(w.next(SecretType, "a"))
	w.subscribe(SecretType, "missing")
	w.ack(w.next(SecretType, "-missing"))
	tab.Apply([]Resource{text(t, "missing", "1"), text(t, "b", "2")}, nil)
	w.ack(w.next(SecretType, "missing"))
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: SecretType, ResourceNamesUnsubscribe: []string{"a"}, ResourceNamesSubscribe: []string{"b"}})
	w.ack(w.next(SecretType, "b"))
	tab.Apply([]Resource{text(t, "a", "2"), text(t, "b", "3")}, nil)
	w.ack(w.next(SecretType, "b"))
}

func TestUnknownAssignmentIsAnsweredEmpty(t *testing.T) {
	tab := NewTable(AssignmentType)
	w := dial(t, serve(t, Options{View: viewOf(tab)}))
	w.subscribe(AssignmentType, "set/1")
	w.ack(w.next(AssignmentType, "set/1"))
	tab.Apply([]Resource{text(t, "set/1", "real")}, nil)
	w.ack(w.next(AssignmentType, "set/1"))
}

func TestResumeSendsOnlyWhatChanged(t *testing.T) {
	tab := NewTable(ClusterType)
	a, b := text(t, "a", "1"), text(t, "b", "1")
	tab.Apply([]Resource{a, b}, nil)
	resumed := make(chan string, 3)
	w := dial(t, serve(t, Options{View: viewOf(tab), Observe: Observers(Observer{}, Observer{
		Resumed: func(_ Stream, typeURL, name, version string) { resumed <- typeURL + " " + name + " " + version },
	})}))
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, InitialResourceVersions: map[string]string{"a": a.Version, "b": "old", "gone": "x"}})
	w.ack(w.next(ClusterType, "b"))
	if got, want := <-resumed, ClusterType+" a "+a.Version; got != want || len(resumed) != 0 {
		t.Errorf("resumed %q and %d more, want %q alone", got, len(resumed), want)
	}
	w.ack(w.next(ClusterType, "-gone"))
	tab.Apply([]Resource{text(t, "a", "2")}, nil)
	w.ack(w.next(ClusterType, "a"))
}

// TestRefusedTogether: siblings are sent alone, the culprit is quarantined in its version and sent again in the next.
func TestRefusedTogether(t *testing.T) {
	var quarantined []string
	tab := NewTable(ScopeType)
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "bad", "1"), text(t, "c", "1")}, nil)
	synced := make(chan struct{})
	w := dial(t, serve(t, Options{View: viewOf(tab), Observe: Observer{
		Quarantined: func(_ Stream, _, name, _, detail string) { quarantined = append(quarantined, name+": "+detail) },
		Synced:      func(Stream, string) { close(synced) },
	}}))
	w.subscribe(ScopeType)
	w.nack(w.next(ScopeType, "a", "bad", "c"))
	w.ack(w.next(ScopeType, "a"))
	w.nack(w.next(ScopeType, "bad"))
	w.ack(w.next(ScopeType, "c"))
	<-synced
	if !slices.Equal(quarantined, []string{"bad: no"}) {
		t.Errorf("quarantined %v", quarantined)
	}
	tab.Apply([]Resource{text(t, "c", "2")}, nil)
	w.ack(w.next(ScopeType, "c"))
	tab.Apply([]Resource{text(t, "bad", "good now")}, nil)
	w.ack(w.next(ScopeType, "bad"))
}

// TestOrder: a table waits for the assignment of its cluster; the way out is the reverse.
func TestOrder(t *testing.T) {
	cds, eds, srds := NewTable(ClusterType), NewTable(AssignmentType), NewTable(ScopeType)
	w := dial(t, serve(t, Options{View: viewOf(srds, eds, cds)}))
	w.subscribe(ClusterType)
	w.ack(w.next(ClusterType))
	w.subscribe(ScopeType)
	w.ack(w.next(ScopeType))

	cds.Apply([]Resource{text(t, "set/1", "1")}, nil)
	eds.Apply([]Resource{text(t, "set/1", "1")}, nil)
	srds.Apply([]Resource{text(t, "ns/a", "1", Ref{AssignmentType, "set/1"}), text(t, "ns/free", "1")}, nil)
	late := w.next(ClusterType, "set/1") // not acknowledged: what counts is the assignment
	w.ack(w.next(ScopeType, "ns/free"))
	w.subscribe(AssignmentType, "set/1")
	w.ack(w.next(AssignmentType, "set/1"))
	w.ack(w.next(ScopeType, "ns/a"))
	w.ack(late)

	cds.Apply([]Resource{text(t, "set/1", "2")}, nil)
	w.ack(w.next(ClusterType, "set/1"))
	w.ack(w.next(AssignmentType, "set/1")) // again, in the version that the client has

	cds.Apply(nil, []string{"set/1"})
	eds.Apply(nil, []string{"set/1"})
	srds.Apply([]Resource{text(t, "ns/free", "2")}, nil)
	w.ack(w.next(ScopeType, "ns/free")) // the cluster stays while ns/a names it
	srds.Apply(nil, []string{"ns/a"})
	w.ack(w.next(ScopeType, "-ns/a"))
	w.next(ClusterType, "-set/1")
}

func TestChunksAndBound(t *testing.T) {
	tab := NewTable(ScopeType)
	var all []Resource
	for i := range 25 {
		all = append(all, text(t, fmt.Sprintf("ns/%02d", i), strings.Repeat("x", 1000)))
	}
	tab.Apply(all, nil)
	w := dial(t, serve(t, Options{View: viewOf(tab), ChunkScopes: 10, InflightBytes: 15_000}))
	w.subscribe(ScopeType)
	one, _ := w.s.Recv()
	two, _ := w.s.Recv()
	if len(one.GetResources()) != 10 || len(two.GetResources()) != 10 || two.GetSystemVersionInfo() == Synced {
		t.Fatalf("chunks of %d and %d", len(one.GetResources()), len(two.GetResources()))
	}
	// More than the bound is in flight: what changes now is sent once, in its newest state, after an answer.
	for i := range 50 {
		tab.Apply([]Resource{text(t, "ns/24", fmt.Sprint("newest ", i))}, nil)
	}
	w.ack(one)
	three, _ := w.s.Recv()
	last := three.GetResources()[len(three.GetResources())-1]
	want := text(t, "ns/24", "newest 49").Version
	if len(three.GetResources()) != 5 || three.GetSystemVersionInfo() != Synced || last.GetVersion() != want {
		t.Errorf("third chunk: %d resources, last %s@%s", len(three.GetResources()), last.GetName(), last.GetVersion())
	}
}

// TestASlowClientDelaysNobody: one client never reads; another gets every change.
func TestASlowClientDelaysNobody(t *testing.T) {
	tab := NewTable(ClusterType)
	conn := serve(t, Options{View: viewOf(tab)})
	slow, quick := dial(t, conn), dial(t, conn)
	slow.subscribe(ClusterType)
	quick.subscribe(ClusterType)
	quick.ack(quick.next(ClusterType))
	for i := range 100 {
		tab.Apply([]Resource{text(t, "a", strings.Repeat("x", 100_000)+fmt.Sprint(i))}, nil)
		quick.ack(quick.next(ClusterType, "a"))
	}
}

func TestSettleWaitsForAnswers(t *testing.T) {
	tab := NewTable(ExtensionType)
	tab.Apply([]Resource{text(t, "authz", "1")}, nil)
	l := Options{View: viewOf(tab)}
	srv := NewServer(l)
	conn := serveWith(t, func(g *grpc.Server) { srv.Register(g) })
	w := dial(t, conn)
	w.subscribe(ExtensionType)
	r := w.next(ExtensionType, "authz")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := srv.Settle(ctx); err == nil {
		t.Error("settled with an answer outstanding")
	}
	w.ack(r)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := srv.Settle(ctx); err != nil {
		t.Error(err)
	}
}

func TestViewDoneEndsTheStream(t *testing.T) {
	done := make(chan struct{})
	tab := NewTable(ClusterType)
	w := dial(t, serve(t, Options{View: func(context.Context, *corev3.Node) (*View, func(), error) {
		return &View{Tables: []*Table{tab}, Done: done}, nil, nil
	}}))
	w.subscribe(ClusterType)
	w.ack(w.next(ClusterType))
	close(done)
	if _, err := w.s.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
}

func TestSecretsHaveAServiceOfTheirOwn(t *testing.T) {
	secrets, cds := NewTable(SecretType), NewTable(ClusterType)
	secrets.Apply([]Resource{text(t, "identity", "1")}, nil)
	cds.Apply([]Resource{text(t, "a", "1")}, nil)
	s, err := secretv3.NewSecretDiscoveryServiceClient(serve(t, Options{View: viewOf(cds, secrets)})).DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{ClusterType, SecretType} { // clusters are not served here
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: u}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Recv(); err != nil || r.GetTypeUrl() != SecretType || len(r.GetResources()) != 1 {
		t.Errorf("got %v, %v", r, err)
	}
}

// A fleet that never rests: whenever the client answers, something newer is owed already. What was owed before is told as answered.
func TestSettleDoesNotWaitForWhatComesLater(t *testing.T) {
	tab := NewTable(ExtensionType)
	tab.Apply([]Resource{text(t, "authz", "0")}, nil)
	srv := NewServer(Options{View: viewOf(tab)})
	w := dial(t, serveWith(t, func(g *grpc.Server) { srv.Register(g) }))
	w.subscribe(ExtensionType)
	r := w.next(ExtensionType, "authz")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	settled := make(chan error, 1)
	go func() { settled <- srv.Settle(ctx) }()
	for i := 1; ; i++ {
		tab.Apply([]Resource{text(t, "authz", fmt.Sprint(i))}, nil)
		w.ack(r)
		select {
		case err := <-settled:
			if err != nil {
				t.Errorf("after %d changes: %v", i, err)
			}
			return
		default:
		}
		r = w.next(ExtensionType, "authz")
	}
}
