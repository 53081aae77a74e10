package delta

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

const benchStreams = 1000

// fan is a set of open streams that acknowledge what they get.
type fan struct {
	streams int
	change  func(i int) // sends one change of 10 KB to each stream
	got     sync.WaitGroup
}

var benchBody = strings.Repeat("x", 10_000)

// tableFan has streams that follow "hot" in a table of so many other resources, which those by wildcard hold too.
func tableFan(b *testing.B, streams, held int, names ...string) *fan {
	b.Helper()
	tab := NewTable(ClusterType)
	all := make([]Resource, 0, held+1)
	for i := range held {
		all = append(all, text(b, fmt.Sprintf("other/%d", i), "x"))
	}
	tab.Apply(append(all, text(b, "hot", "0")), nil)
	f := &fan{streams: streams, change: func(i int) {
		tab.Apply([]Resource{text(b, "hot", fmt.Sprint(i)+benchBody)}, nil)
	}}
	f.open(b, serve(b, Options{View: viewOf(tab)}), names)
	return f
}

// open opens the streams and waits until each has its initial state.
func (f *fan) open(b *testing.B, conn *grpc.ClientConn, names []string) {
	b.Helper()
	var ready sync.WaitGroup
	ready.Add(f.streams)
	for range f.streams {
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(b.Context(), grpc.MaxCallRecvMsgSize(MaxMessageBytes))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResourceNamesSubscribe: names}); err != nil {
			b.Fatal(err)
		}
		go func() {
			for synced := false; ; {
				r, err := s.Recv()
				if err != nil {
					return
				}
				switch {
				case synced:
					f.got.Done()
				case r.GetSystemVersionInfo() == Synced:
					synced = true
					ready.Done()
				}
				_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
			}
		}()
	}
	ready.Wait()
}

// time of one change, until every stream has it.
func (f *fan) time(i int) time.Duration {
	f.got.Add(f.streams)
	start := time.Now()
	f.change(i)
	f.got.Wait()
	return time.Since(start)
}

// bare sends the same bytes to every stream with nothing in between.
type bare struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	streams []chan *discoveryv3.DeltaDiscoveryResponse
}

func (s *bare) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	out := make(chan *discoveryv3.DeltaDiscoveryResponse, 4)
	s.mu.Lock()
	s.streams = append(s.streams, out)
	s.mu.Unlock()
	out <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: ClusterType, SystemVersionInfo: Synced}
	go func() {
		for {
			if _, err := g.Recv(); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case r := <-out:
			if err := g.Send(r); err != nil {
				return err
			}
		case <-g.Context().Done():
			return g.Context().Err()
		}
	}
}

func bareFan(b *testing.B, streams int) *fan {
	b.Helper()
	s := &bare{}
	f := &fan{streams: streams, change: func(i int) {
		r := text(b, "hot", fmt.Sprint(i)+benchBody)
		for _, out := range s.streams {
			out <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: ClusterType, Nonce: "1",
				Resources: []*discoveryv3.Resource{{Name: r.Name, Version: r.Version, Resource: r.Body}}}
		}
	}}
	f.open(b, serveWith(b, func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s) }), []string{"hot"})
	return f
}

// compare runs two fans in turn, so that what else the machine does meets both, and reports the median of each and by
// how much the second is slower.
func compare(b *testing.B, base, other *fan) {
	b.Helper()
	var t [2][]time.Duration
	for b.Loop() { // unlike b.N it does not set up twice
		i := len(t[0])
		t[0] = append(t[0], base.time(i))
		t[1] = append(t[1], other.time(i))
	}
	var median [2]float64
	for i := range t {
		slices.Sort(t[i])
		median[i] = float64(t[i][len(t[i])/2].Microseconds()) / 1000
	}
	b.ReportMetric(median[0], "ms-base")
	b.ReportMetric(median[1], "ms")
	b.ReportMetric(median[1]/median[0], "x-base")
}

// BenchmarkFanout: one change of 10 KB to 1,000 streams, against a bare gRPC fan-out of the same bytes. At most 2x.
func BenchmarkFanout(b *testing.B) {
	compare(b, bareFan(b, benchStreams), tableFan(b, benchStreams, 10_000, "hot"))
}

// BenchmarkHeld: the same change with 1M resources in the table, against 10,000. At most 1.2x.
func BenchmarkHeld(b *testing.B) {
	compare(b, tableFan(b, benchStreams, 10_000, "hot"), tableFan(b, benchStreams, 1_000_000, "hot"))
}

// BenchmarkHeldByStreams: the same to 2 streams that hold all of it by wildcard.
func BenchmarkHeldByStreams(b *testing.B) {
	compare(b, tableFan(b, 2, 10_000), tableFan(b, 2, 1_000_000))
}
