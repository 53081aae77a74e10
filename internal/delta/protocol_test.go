package delta

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bellType has a table of its own that is served last: when an answer of its comes, all that went before on the stream has
// been looked at, and nothing else was to be sent.
const bellType = "type.googleapis.com/google.protobuf.StringValue"

type bell struct {
	w     *wire
	rings int
}

func (b *bell) nothingElse() {
	b.w.t.Helper()
	b.rings++
	name := fmt.Sprint("ring ", b.rings)
	b.w.subscribe(bellType, name)
	b.w.ack(b.w.next(bellType, "-"+name))
}

// dialWithBell opens a stream to a server of these tables.
func dialWithBell(t *testing.T, o Observer, tables ...*Table) (*wire, *bell) {
	t.Helper()
	w := dial(t, serve(t, Options{View: viewOf(append(tables, NewTable(bellType))...), Observe: o}))
	return w, &bell{w: w}
}

func TestUnsubscribe(t *testing.T) {
	tab := NewTable(ClusterType)
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, nil)
	w, bell := dialWithBell(t, Observer{}, tab)
	w.subscribe(ClusterType, "*", "a")
	w.ack(w.next(ClusterType, "a", "b"))

	// A name that the wildcard still covers is sent once more: the client may have dropped it.
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResourceNamesUnsubscribe: []string{"a"}})
	w.ack(w.next(ClusterType, "a"))
	w.subscribe(ClusterType, "b")
	w.ack(w.next(ClusterType, "b")) // asked for again: sent again
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResourceNamesUnsubscribe: []string{"*"}})
	bell.nothingElse()
	tab.Apply([]Resource{text(t, "a", "2"), text(t, "b", "2")}, nil)
	w.ack(w.next(ClusterType, "b"))
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResourceNamesUnsubscribe: []string{"b", "never asked for"}})
	bell.nothingElse()
	tab.Apply([]Resource{text(t, "b", "3")}, []string{"a"})
	bell.nothingElse()
	w.subscribe(ClusterType, "*")
	w.ack(w.next(ClusterType, "b"))
}

// TestSeveralInFlight: what is not answered holds up only later versions of itself, and of these the newest is sent.
func TestSeveralInFlight(t *testing.T) {
	tab := NewTable(ListenerType)
	w, bell := dialWithBell(t, Observer{}, tab)
	w.subscribe(ListenerType)
	w.ack(w.next(ListenerType))
	var open []*discoveryv3.DeltaDiscoveryResponse
	for _, name := range []string{"a", "b", "c"} {
		tab.Apply([]Resource{text(t, name, "1")}, nil)
		open = append(open, w.next(ListenerType, name))
	}
	for i := range 3 {
		tab.Apply([]Resource{text(t, "a", fmt.Sprint("later ", i))}, []string{"b"})
	}
	bell.nothingElse()
	w.ack(open[2])
	w.ack(open[0])
	if r := w.next(ListenerType, "a"); r.GetResources()[0].GetVersion() != text(t, "a", "later 2").Version {
		t.Error("an older state was sent")
	}
	w.ack(open[1])
	w.ack(w.next(ListenerType, "-b"))
}

func TestChunksOfBytes(t *testing.T) {
	tab := NewTable(ClusterType)
	for i := range 5 {
		tab.Apply([]Resource{text(t, fmt.Sprint(i), strings.Repeat("x", 400_000))}, nil)
	}
	w := dial(t, serve(t, Options{View: viewOf(tab)}))
	w.subscribe(ClusterType)
	first, second := w.next(ClusterType, "0", "1", "2"), w.next(ClusterType, "3", "4")
	if first.GetSystemVersionInfo() == Synced || second.GetSystemVersionInfo() != Synced {
		t.Errorf("marks: %q, %q", first.GetSystemVersionInfo(), second.GetSystemVersionInfo())
	}
}

// needing is a view of clusters with assignments and tables.
type needing struct{ cds, eds, srds *Table }

func newNeeding(t *testing.T, o Observer) (needing, *wire, *bell) {
	t.Helper()
	v := needing{NewTable(ClusterType), NewTable(AssignmentType), NewTable(ScopeType)}
	w, b := dialWithBell(t, o, v.cds, v.eds, v.srds)
	return v, w, b
}

func (v needing) sets(t *testing.T, version string, names ...string) {
	t.Helper()
	for _, name := range names {
		v.cds.Apply([]Resource{text(t, name, version)}, nil)
		v.eds.Apply([]Resource{text(t, name, version)}, nil)
	}
}

func set(name string) Ref { return Ref{AssignmentType, name} }

// TestRefusedNeedHoldsUpNobody: a table whose cluster is refused waits, others do not, and the client is in sync; with a
// better version of the cluster the table follows.
func TestRefusedNeedHoldsUpNobody(t *testing.T) {
	synced := make(chan struct{})
	v, w, bell := newNeeding(t, Observer{Synced: func(_ Stream, typeURL string) {
		if typeURL == ScopeType {
			close(synced)
		}
	}})
	v.sets(t, "1", "bad", "good")
	v.srds.Apply([]Resource{text(t, "ns/bad", "1", set("bad")), text(t, "ns/good", "1", set("good"))}, nil)
	w.subscribe(ClusterType)
	both := w.next(ClusterType, "bad", "good")
	w.subscribe(AssignmentType)
	w.ack(w.next(AssignmentType, "bad", "good"))
	w.subscribe(ScopeType)
	w.nack(both)
	w.nack(w.next(ClusterType, "bad"))
	w.ack(w.next(ClusterType, "good"))
	for got := 0; got < 2; { // each cluster sent again is followed by its assignment, together or one by one
		r, err := w.s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		w.ack(r)
		if r.GetTypeUrl() == ScopeType {
			if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "ns/good" || r.GetSystemVersionInfo() != Synced {
				t.Fatalf("got %v", r)
			}
			got = 2
		}
	}
	<-synced
	v.cds.Apply([]Resource{text(t, "bad", "better")}, nil)
	w.ack(w.next(ClusterType, "bad"))
	w.ack(w.next(AssignmentType, "bad"))
	w.ack(w.next(ScopeType, "ns/bad"))
	bell.nothingElse()
}

// TestGrowingKeepsTheOldTable: a table that comes to need one set more is replaced when that set is there.
func TestGrowingKeepsTheOldTable(t *testing.T) {
	v, w, bell := newNeeding(t, Observer{})
	for _, typeURL := range []string{ClusterType, AssignmentType, ScopeType} {
		w.subscribe(typeURL)
		w.ack(w.next(typeURL))
	}
	v.sets(t, "1", "a")
	v.srds.Apply([]Resource{text(t, "ns/x", "1", set("a"))}, nil)
	w.ack(w.next(ClusterType, "a"))
	w.ack(w.next(AssignmentType, "a"))
	w.ack(w.next(ScopeType, "ns/x"))
	bell.nothingElse()

	v.sets(t, "1", "b")
	v.srds.Apply([]Resource{text(t, "ns/x", "2", set("a"), set("b")), text(t, "ns/y", "1", set("a"))}, nil)
	w.ack(w.next(ClusterType, "b"))
	late := w.next(AssignmentType, "b")
	w.ack(w.next(ScopeType, "ns/y"))
	bell.nothingElse()
	w.ack(late)
	w.ack(w.next(ScopeType, "ns/x"))
	bell.nothingElse()

	v.srds.Apply([]Resource{text(t, "ns/x", "3", set("b"))}, nil) // shrinking does not wait, and a goes when nothing needs it
	v.srds.Apply(nil, []string{"ns/y"})
	v.eds.Apply(nil, []string{"a"})
	v.cds.Apply(nil, []string{"a"})
	w.ack(w.next(ScopeType, "ns/x"))
	w.ack(w.next(ScopeType, "-ns/y"))
	w.ack(w.next(ClusterType, "-a"))
	w.ack(w.next(AssignmentType, "-a"))
}

// TestARefusedTableKeepsWhatTheOldOneNeeds, alone and together with others, where the client may hold either.
func TestARefusedTableKeepsWhatTheOldOneNeeds(t *testing.T) {
	v, w, bell := newNeeding(t, Observer{})
	v.sets(t, "1", "a", "b")
	v.srds.Apply([]Resource{text(t, "ns/x", "1", set("a"))}, nil)
	for _, typeURL := range []string{ClusterType, AssignmentType} {
		w.subscribe(typeURL)
		w.ack(w.next(typeURL, "a", "b"))
	}
	w.subscribe(ScopeType)
	w.ack(w.next(ScopeType, "ns/x"))
	bell.nothingElse()
	v.srds.Apply([]Resource{text(t, "ns/x", "2", set("b")), text(t, "ns/y", "1")}, nil)
	w.nack(w.next(ScopeType, "ns/x", "ns/y"))
	again := w.next(ScopeType, "ns/x")
	w.ack(w.next(ScopeType, "ns/y"))
	v.srds.Apply([]Resource{text(t, "ns/x", "3")}, nil)
	v.eds.Apply(nil, []string{"a", "b"})
	v.cds.Apply(nil, []string{"a", "b"})
	bell.nothingElse()
	w.nack(again) // so the client holds version 1: b goes, a stays
	w.ack(w.next(ClusterType, "-b"))
	w.ack(w.next(AssignmentType, "-b"))
	w.nack(w.next(ScopeType, "ns/x"))
	bell.nothingElse()
}

// TestWhatWasRefusedTogetherIsPutBack: the client may have applied the version that was taken back since.
func TestWhatWasRefusedTogetherIsPutBack(t *testing.T) {
	tab := NewTable(RouteType)
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, nil)
	w, bell := dialWithBell(t, Observer{}, tab)
	w.subscribe(RouteType)
	w.ack(w.next(RouteType, "a", "b"))
	bell.nothingElse()
	tab.Apply([]Resource{text(t, "a", "2"), text(t, "b", "2"), text(t, "c", "2")}, nil)
	refused := w.next(RouteType, "a", "b", "c")
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, []string{"c"})
	w.nack(refused)
	for _, want := range []string{"a", "b", "-c"} {
		w.ack(w.next(RouteType, want))
	}
	bell.nothingElse()
}

// TestFarBehind: a stream that is further behind than the change log reaches back compares all names.
func TestFarBehind(t *testing.T) {
	tab := NewTable(ClusterType)
	tab.Apply([]Resource{text(t, "changes", "0"), text(t, "goes", "1"), text(t, "stays", "1")}, nil)
	s := newSession(&View{Tables: []*Table{tab}}, limits{1 << 20, 100, 1 << 20}, events{})
	s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType})
	s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResponseNonce: s.next().GetNonce()})
	tab.Apply(nil, []string{"goes"})
	for i := range 2 * maxLog {
		tab.Apply([]Resource{text(t, "changes", fmt.Sprint(i+1))}, nil)
	}
	if _, _, ok := tab.Since(1); ok || len(tab.log) > 2*maxLog {
		t.Fatalf("the log of %d changes reaches back to the start", len(tab.log))
	}
	if _, end, ok := tab.Since(1 << 40); ok || end != uint64(2*maxLog+4) {
		t.Errorf("a cursor of the future: %d, %v", end, ok)
	}
	s.changed()
	r := s.next()
	if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "changes" {
		t.Errorf("sent %v", r)
	}
	if gone := s.next(); !slices.Equal(gone.GetRemovedResources(), []string{"goes"}) {
		t.Errorf("removed %v", gone)
	}
}

func TestAFloodEndsTheStream(t *testing.T) {
	in := inbox{ready: make(chan struct{}, 1), limit: 10}
	r := &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "b"}}
	for range 3 {
		if err := in.put(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := in.take(); len(got) != 3 || err != nil {
		t.Fatalf("took %d, %v", len(got), err)
	}
	for range 3 {
		_ = in.put(r, nil)
	}
	if err := in.put(r, nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	if _, err := in.take(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func TestViewDoneEndsABusyStream(t *testing.T) {
	tab, done := NewTable(ClusterType), make(chan struct{})
	tab.Apply([]Resource{text(t, "a", "1")}, nil)
	close(done)
	w := dial(t, serve(t, Options{View: func(context.Context, *corev3.Node) (*View, func(), error) {
		return &View{Tables: []*Table{tab}, Done: done}, nil, nil
	}}))
	w.subscribe(ClusterType)
	if r, err := w.s.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	tab := NewTable(ClusterType)
	closed := make(chan struct{})
	conn := serve(t, Options{View: viewOf(tab), Observe: Observers(Metrics(reg, "isthmus_test"), Observer{Closed: func(Stream, error) { close(closed) }})})
	if err := TableMetrics(reg, "isthmus_test", func() []*Table { return []*Table{tab} }); err != nil {
		t.Fatal(err)
	}
	tab.Apply([]Resource{text(t, "a", "1"), text(t, "b", "1")}, nil)
	w := dial(t, conn)
	w.subscribe(ClusterType)
	w.nack(w.next(ClusterType, "a", "b"))
	w.ack(w.next(ClusterType, "a"))
	w.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResponseNonce: w.next(ClusterType, "b").GetNonce(), ErrorDetail: &rpcstatus.Status{}})
	if err := w.s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	<-closed
	want := `
# HELP isthmus_test_xds_acked_resources_total Resources acknowledged.
# TYPE isthmus_test_xds_acked_resources_total counter
isthmus_test_xds_acked_resources_total{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 1
# HELP isthmus_test_xds_nacks_total Responses that a client refused.
# TYPE isthmus_test_xds_nacks_total counter
isthmus_test_xds_nacks_total{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 2
# HELP isthmus_test_xds_pushed_resources_total Resources sent and removed.
# TYPE isthmus_test_xds_pushed_resources_total counter
isthmus_test_xds_pushed_resources_total{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 4
# HELP isthmus_test_xds_quarantined_total Resources that a client refused alone.
# TYPE isthmus_test_xds_quarantined_total counter
isthmus_test_xds_quarantined_total{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 1
# HELP isthmus_test_xds_resources Resources that the server holds.
# TYPE isthmus_test_xds_resources gauge
isthmus_test_xds_resources{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 2
# HELP isthmus_test_xds_streams Open delta xDS streams.
# TYPE isthmus_test_xds_streams gauge
isthmus_test_xds_streams 0
`
	var names []string
	for _, line := range strings.Split(want, "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
			names = append(names, f[2])
		}
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "isthmus_test_xds_push_seconds"); n != 1 || err != nil {
		t.Errorf("%d histograms of answers, %v", n, err)
	}
}
