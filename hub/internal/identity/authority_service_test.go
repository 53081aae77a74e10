package identity

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

func TestReplicasShareOneCA(t *testing.T) {
	namespace(t, "shared", nil)
	bundles := make([]string, 6)
	var starts sync.WaitGroup
	for i := range bundles {
		starts.Go(func() {
			s, err := NewService(t.Context(), Options{Client: api, Namespace: "shared", Fleet: "fleet", APIServer: "https://x"})
			if err != nil {
				t.Error(err)
				return
			}
			bundles[i] = string(s.Bundle())
		})
	}
	starts.Wait()
	for _, b := range bundles {
		if b == "" || b != bundles[0] {
			t.Fatal("replicas that started together have different CAs")
		}
	}
}

func setCA(t *testing.T, ns string, data map[string][]byte) {
	t.Helper()
	var s corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: SecretName}, &s); err != nil {
		t.Fatal(err)
	}
	s.Data = data
	if err := api.Update(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
}

// TestCAReplaced: a broken CA and one that nobody trusts change nothing; bundle first, then signer, goes through.
func TestCAReplaced(t *testing.T) {
	namespace(t, "rotate", nil)
	h := newHub(t, "rotate", clocktesting.NewFakeClock(time.Now()))
	first, _ := h.service.Source().Get()
	cert, key, err := makeCA("fleet", h.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	var s corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "rotate", Name: SecretName}, &s); err != nil {
		t.Fatal(err)
	}
	both := append(append([]byte{}, s.Data["ca.crt"]...), cert...)
	same := func(what, wantErr string) {
		t.Helper()
		if err := h.service.refresh(t.Context()); err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: %v, want an error with %q", what, err, wantErr)
		}
		if now, _ := h.service.Source().Get(); string(now.Chain) != string(first.Chain) || string(now.Bundle) != string(first.Bundle) {
			t.Errorf("%s: the hub changed its leaf or bundle", what)
		}
	}
	setCA(t, "rotate", map[string][]byte{"tls.crt": cert, "tls.key": s.Data["tls.key"], "ca.crt": cert})
	same("a key that does not fit", "tls.key")
	setCA(t, "rotate", map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": both})
	same("a signer before its bundle", "trusted by nobody")
	setCA(t, "rotate", map[string][]byte{"tls.crt": s.Data["tls.crt"], "tls.key": s.Data["tls.key"], "ca.crt": both})
	if err := h.service.refresh(t.Context()); err != nil || string(h.service.Bundle()) != string(both) {
		t.Fatalf("both in the bundle: %v", err)
	}
	setCA(t, "rotate", map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": both})
	if err := h.service.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ca, err := identity.ParseCertificates(cert)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, _ := h.service.Source().Leaf(); leaf.CheckSignatureFrom(ca[0]) != nil {
		t.Error("the hub's leaf is not of the new CA")
	}
}

// TestHubRenewsItself: Start follows the clock; a third of a leaf's life later there is another.
func TestHubRenewsItself(t *testing.T) {
	namespace(t, "self", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "self", clk)
	leak := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, leak)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.service.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	first, _ := h.service.Source().Leaf()
	changed := h.service.Source().Changed()
	deadline := time.After(10 * time.Second)
	for !clk.HasWaiters() {
		select {
		case <-deadline:
			t.Fatal("Start does not tick")
		default:
		}
	}
	clk.Step(3 * 24 * time.Hour) // past a third of seven days and a tenth
	select {
	case <-changed:
	case <-deadline:
		t.Fatal("the hub's leaf was not renewed")
	}
	if next, _ := h.service.Source().Leaf(); !next.NotAfter.After(first.NotAfter) {
		t.Errorf("ends %s, before %s", next.NotAfter, first.NotAfter)
	}
}
