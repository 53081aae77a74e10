package delta

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

const benchStreams = 1000

// acker reads one stream to its end, acknowledges, and counts responses down.
func acker(tb testing.TB, conn *grpc.ClientConn, got *sync.WaitGroup, first chan<- struct{}) {
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(tb.Context())
	if err != nil {
		tb.Error(err)
		return
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ScopeType, ResourceNamesSubscribe: []string{"hot"}}); err != nil {
		tb.Error(err)
		return
	}
	for n := 0; ; n++ {
		r, err := s.Recv()
		if err != nil {
			return
		}
		if n == 0 {
			first <- struct{}{}
		} else {
			got.Done()
		}
		_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ScopeType, ResponseNonce: r.GetNonce()})
	}
}

func fanOut(b *testing.B, conn *grpc.ClientConn, change func(i int)) {
	var got sync.WaitGroup
	first := make(chan struct{}, benchStreams)
	for range benchStreams {
		go acker(b, conn, &got, first)
	}
	for range benchStreams {
		<-first
	}
	b.ResetTimer()
	for i := range b.N {
		got.Add(benchStreams)
		change(i)
		got.Wait()
	}
	b.StopTimer()
}

// BenchmarkFanout: one change of 10 KB to 1,000 streams, through a Table with few and with many resources held.
func BenchmarkFanout(b *testing.B) {
	for _, held := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("held=%d", held), func(b *testing.B) {
			tab := NewTable(ScopeType)
			all := make([]Resource, 0, held)
			for i := range held {
				all = append(all, text(b, fmt.Sprintf("ns/%d", i), "x"))
			}
			tab.Apply(append(all, text(b, "hot", "0")), nil)
			body := strings.Repeat("x", 10_000)
			fanOut(b, serve(b, Options{View: viewOf(tab)}), func(i int) {
				tab.Apply([]Resource{text(b, "hot", fmt.Sprint(i)+body)}, nil)
			})
		})
	}
}

// bare sends the same bytes to every stream with nothing in between: the floor that BenchmarkFanout is measured by.
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
	out <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: ScopeType}
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

func BenchmarkFanoutBareGRPC(b *testing.B) {
	s := &bare{}
	conn := serveWith(b, func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s) })
	body := strings.Repeat("x", 10_000)
	fanOut(b, conn, func(i int) {
		r := text(b, "hot", fmt.Sprint(i)+body)
		for _, out := range s.streams {
			out <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: ScopeType, Nonce: "1",
				Resources: []*discoveryv3.Resource{{Name: r.Name, Version: r.Version, Resource: r.Body}}}
		}
	})
}
