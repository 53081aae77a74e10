package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"net"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// strictHub serves one identity and refuses all others, as a hub does whose Spoke was deleted and created again.
type strictHub struct {
	mu      sync.Mutex
	member  identity.ID
	revoked chan struct{}
	tables  []*delta.Table
	refused []identity.ID
}

func (h *strictHub) view(ctx context.Context, _ *corev3.Node) (*delta.View, func(), error) {
	id, err := identity.PeerID(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || id != h.member {
		h.refused = append(h.refused, id)
		return nil, nil, status.Error(codes.PermissionDenied, "no Spoke has this identity")
	}
	return &delta.View{Tables: h.tables, Done: h.revoked}, nil, nil
}

// replace makes another identity the member, and ends the streams of the one before.
func (h *strictHub) replace(id identity.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.revoked != nil {
		close(h.revoked)
	}
	h.member, h.revoked = id, make(chan struct{})
}

func (h *strictHub) refusals() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.refused)
}

// TestASpokeThatJoinsAnew: the Spoke is deleted, which refuses the router, and created again, with another identity. The
// router calls with the new certificate, and until it is served it keeps what it has, the list of those who may call too.
func TestASpokeThatJoinsAnew(t *testing.T) {
	ca, s := newAuthority(t), newSite(t, "eu")
	first, second := spokeID("eu"), spokeID("eu")
	second.UID8 = "ffffffff"
	h := &strictHub{}
	h.replace(first)
	byType := map[string]*delta.Table{}
	for _, typeURL := range order {
		if mirrored[typeURL] != nil {
			byType[typeURL] = delta.NewTable(typeURL)
			h.tables = append(h.tables, byType[typeURL])
		}
	}
	byType[router.ExtensionType].Apply([]delta.Resource{hubAuthz(t, "eu")}, nil)
	byType[router.ScopeType].Apply([]delta.Resource{hubTable(t, "ns", nil)}, nil)

	src := identity.NewSource()
	if err := src.Set(ca.issue(identity.HubURI("fleet"), identity.HubDNSName("fleet"))); err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(src))))
	delta.NewServer(delta.Options{Identifier: "epoch-1", View: h.view}).Register(server)
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)

	s.hub = lis.Addr().String()
	if err := s.identity.Set(ca.spoke(first)); err != nil {
		t.Fatal(err)
	}
	s.startRelay()
	served := func(name string) func() error {
		return func() error {
			if !slices.Contains(s.relay.core.tables[router.ScopeType].Names(), name) {
				return errors.New("it is not")
			}
			return nil
		}
	}
	eventually(t, "the first table is served", served("ns/ns"))
	kept := func(when string) {
		t.Helper()
		if len(s.relay.core.tables[router.ExtensionType].Names()) != 1 || served("ns/ns")() != nil {
			t.Errorf("%s the router lacks what it was served", when)
		}
	}

	h.replace(identity.ID{})
	eventually(t, "the router is refused", func() error {
		if h.refusals() == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	kept("once refused")
	h.replace(second)
	byType[router.ScopeType].Apply([]delta.Resource{hubTable(t, "new", nil)}, nil)
	if err := s.identity.Set(ca.spoke(second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the table of the second life is served", served("ns/new"))
	kept("joined anew")
	s.stop()
}
