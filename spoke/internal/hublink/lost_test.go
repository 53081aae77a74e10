package hublink_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
	"github.com/isthmus-dev/isthmus/spoke/internal/hubtest"
)

// lossy is a hub whose answers get lost while lose is set.
type lossy struct {
	identity.Client
	mu   sync.Mutex
	lose bool
	keys []string
}

func (i *lossy) EnrollWith(ctx context.Context, bundle []byte, spoke, token string, key []byte, former identity.Material) (identity.Credentials, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, string(key))
	if i.lose {
		return identity.Credentials{}, status.Error(codes.Unavailable, "connection reset")
	}
	return i.Client.EnrollWith(ctx, bundle, spoke, token, key, former)
}

// TestALostAnswerIsAskedForWithTheSameKey, by the next try and by the next process: the hub answers the same key again.
func TestALostAnswerIsAskedForWithTheSameKey(t *testing.T) {
	l := newLink(t, "lost")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	hub := &lossy{Client: identity.Client{Address: l.hub.Address(), Fleet: hubtest.Fleet, Now: l.clock.Now}, lose: true}
	run := func() (stop func()) {
		l.src = identity.NewSourceAt(l.clock.Now)
		l.keeper = hublink.NewKeeper(hublink.Options{
			Fleet: hubtest.Fleet, Spoke: "eu", Namespace: l.ns, Kubernetes: l.kube, Issuer: hub,
			BundleFile: filepath.Join(l.dir, "ca.crt"), TokenFile: filepath.Join(l.dir, "token"),
			Source: l.src, Clock: l.clock, Log: slog.New(slog.NewTextHandler(l.Output(), nil)), Metrics: l.metrics,
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = l.keeper.Run(ctx) }()
		stop = sync.OnceFunc(func() { cancel(); <-done })
		l.Cleanup(stop)
		return stop
	}
	stop := run()
	l.await(time.Second, hublink.Joining, "connection reset")
	stop()
	hub.mu.Lock()
	hub.lose = false
	hub.mu.Unlock()
	run()
	l.await(time.Second, hublink.Joined, "")
	if len(hub.keys) < 2 {
		t.Fatalf("%d calls", len(hub.keys))
	}
	for _, k := range hub.keys {
		if k == "" || k != hub.keys[0] {
			t.Error("a try used another key")
		}
	}
	l.g.Eventually(func() error {
		c, err := credentials.Load(l.Context(), l.kube, l.ns)
		if err == nil && string(c.Material.Key) != hub.keys[0] {
			err = errors.New("another key is stored")
		}
		return err
	}).WithTimeout(deadline).Should(Succeed())
}
