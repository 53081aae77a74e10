package relay

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/test/freeport"
)

// hub is a real delta server over mTLS; the test writes its tables.
type hub struct {
	t      *testing.T
	addr   string
	epoch  string
	mark   string // of its store
	tables map[string]*delta.Table
	server *grpc.Server
	xds    *delta.Server
	src    *identity.Source

	mu         sync.Mutex
	incomplete []string // spokes that it does not know completely
}

// identifier is what each response of a hub with this epoch and mark says of it.
func (h *hub) identifier(epoch, mark string) func() string {
	return func() string {
		h.mu.Lock()
		defer h.mu.Unlock()
		return delta.Epoch{UID: epoch, Mark: mark, Incomplete: h.incomplete}.String()
	}
}

// restart starts a hub that was stopped; it does not know some spokes completely.
func (h *hub) restart(incomplete ...string) {
	h.t.Helper()
	h.mu.Lock()
	h.incomplete = incomplete
	h.mu.Unlock()
	if number, rest, ok := strings.Cut(h.mark, "."); ok {
		n, err := strconv.Atoi(number)
		if err != nil {
			h.t.Error(err)
		}
		h.mark = fmt.Sprintf("%d.%s", n+1, rest)
	}
	h.start()
}

// know has the hub tell that it knows every spoke completely.
func (h *hub) know() {
	h.mu.Lock()
	h.incomplete = nil
	h.mu.Unlock()
	h.xds.Tell()
}

func startHub(t *testing.T, ca *authority) *hub {
	t.Helper()
	h := &hub{t: t, addr: freeport.Address(t), epoch: "epoch-1", mark: "1.x.y", src: identity.NewSource()}
	if err := h.src.Set(ca.issue(identity.HubURI("fleet"), identity.HubDNSName("fleet"))); err != nil {
		t.Fatal(err)
	}
	h.empty()
	h.start()
	t.Cleanup(func() { h.server.Stop() })
	return h
}

// empty is a hub that lost everything.
func (h *hub) empty() {
	h.tables = map[string]*delta.Table{}
	for typeURL := range mirrored {
		h.tables[typeURL] = delta.NewTable(typeURL)
	}
}

func (h *hub) start() {
	h.t.Helper()
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	v := &delta.View{}
	for _, t := range order {
		if h.tables[t] != nil {
			v.Tables = append(v.Tables, h.tables[t])
		}
	}
	h.xds = delta.NewServer(delta.Options{Identify: h.identifier(h.epoch, h.mark), View: func(ctx context.Context, _ *corev3.Node) (*delta.View, func(), error) {
		if _, err := identity.PeerID(ctx); err != nil {
			return nil, nil, status.Error(codes.Unauthenticated, err.Error())
		}
		return v, nil, nil
	}})
	h.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(h.src))))
	h.xds.Register(h.server)
	go func() { _ = h.server.Serve(l) }()
}

func (h *hub) put(typeURL string, rs ...delta.Resource) { h.tables[typeURL].Apply(rs, nil) }
