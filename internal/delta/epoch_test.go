package delta

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
)

func TestEpoch(t *testing.T) {
	for text, want := range map[string]Epoch{
		"":                            {},
		"a":                           {UID: "a"},
		"a;supersedes=b":              {UID: "a", Supersedes: []string{"b"}},
		"a;supersedes=b,c-d":          {UID: "a", Supersedes: []string{"b", "c-d"}},
		"a;mark=7.x.y":                {UID: "a", Mark: "7.x.y"},
		"a;supersedes=b;mark=7.x":     {UID: "a", Supersedes: []string{"b"}, Mark: "7.x"},
		"a;incomplete=eu":             {UID: "a", Incomplete: []string{"eu"}},
		"a;mark=7.x;incomplete=eu,us": {UID: "a", Mark: "7.x", Incomplete: []string{"eu", "us"}},
	} {
		got := ParseEpoch(text)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, want %+v", text, got, want)
		}
		if got.String() != text {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
	if got := ParseEpoch("a;supersedes="); got.UID != "a" || got.Supersedes != nil {
		t.Errorf("an empty list is %+v", got)
	}
}

func TestLaterMark(t *testing.T) {
	for _, c := range [][3]string{{"", "1.a", "1.a"}, {"9.a", "10.a", "10.a"}, {"10.a", "9.b", "10.a"}, {"2.a", "x", "2.a"}, {"3.a", "", "3.a"}} {
		if got := LaterMark(c[0], c[1]); got != c[2] {
			t.Errorf("of %q and %q the later is %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// TestTell: a client that holds everything is told a new identifier, once, and what it says of it changes nothing; one that has been
// told nothing yet is not.
func TestTell(t *testing.T) {
	tab := NewTable(ClusterType)
	tab.Apply([]Resource{text(t, "a", "1")}, nil)
	var now atomic.Value
	now.Store("e;mark=1.x")
	server := NewServer(Options{View: viewOf(tab), Identify: func() string { return now.Load().(string) }})
	w := dial(t, serveWith(t, func(g *grpc.Server) { server.Register(g) }))
	w.subscribe(ClusterType)
	first := w.next(ClusterType, "a")
	server.Tell() // nothing new
	w.ack(first)
	for _, id := range []string{"e;mark=2.x", "e;mark=3.x"} {
		now.Store(id)
		server.Tell()
		r := w.next(ClusterType)
		if got := r.GetControlPlane().GetIdentifier(); got != id {
			t.Errorf("told %q, want %q", got, id)
		}
		w.nack(r)
	}
	tab.Apply([]Resource{text(t, "b", "1")}, nil)
	w.next(ClusterType, "b")
}

// TestSeen: what a client has seen is asked for at each stream, and goes with the node it was given.
func TestSeen(t *testing.T) {
	seen := []string{"", "e;mark=4.x"}
	got := make(chan *corev3.Node, 2)
	conn := serve(t, Options{View: func(_ context.Context, n *corev3.Node) (*View, func(), error) {
		got <- n
		done := make(chan struct{})
		close(done)
		return &View{Tables: []*Table{NewTable(ClusterType)}, Done: done}, nil, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	i := 0
	client := NewClient(conn, ClientOptions{Node: &corev3.Node{Id: "n"}, Types: []string{ClusterType},
		Seen:  func() string { i++; return seen[min(i-1, 1)] },
		Apply: func(context.Context, Update) error { return nil }})
	go func() { ended <- client.Run(ctx) }()
	for _, want := range seen {
		if n := <-got; SeenBy(n) != want || n.GetId() != "n" {
			t.Errorf("node %v, want one that has seen %q", n, want)
		}
	}
	cancel()
	<-ended
}
