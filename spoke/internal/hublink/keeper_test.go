package hublink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
	"github.com/isthmus-dev/isthmus/spoke/internal/hubtest"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var config *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, &config)) }

const deadline = time.Minute

// link is a spoke's namespace, a hub, and a clock that both go by.
type link struct {
	*testing.T
	g        *WithT
	kube     kubernetes.Interface
	clock    *clocktesting.FakeClock
	hub      *hubtest.Hub
	registry *prometheus.Registry
	metrics  *hublink.Metrics
	ns, dir  string
	keeper   *hublink.Keeper
	src      *identity.Source
	tokens   int
	set      atomic.Int64 // how far the spoke's wall clock is from that; timers do not see it
}

// setClock is a wall clock that was set while timers run on.
type setClock struct {
	*clocktesting.FakeClock
	by *atomic.Int64
}

func (c setClock) Now() time.Time { return c.FakeClock.Now().Add(time.Duration(c.by.Load())) }

func (c setClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func newLink(t *testing.T, ns string) *link {
	t.Helper()
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{T: t, g: NewWithT(t), kube: kube, ns: ns, dir: t.TempDir(), clock: clocktesting.NewFakeClock(time.Now()), registry: prometheus.NewRegistry()}
	if l.metrics, err = hublink.NewMetrics(l.registry); err != nil {
		t.Fatal(err)
	}
	if _, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	if l.hub, err = hubtest.NewHub(l.clock.Now); err != nil {
		t.Fatal(err)
	}
	l.hub.Answer = func(identity.ID) (*identitypb.Credentials, error) {
		l.tokens++
		return &identitypb.Credentials{ApiServer: "https://hub.test", ApiToken: fmt.Sprintf("token-%d", l.tokens),
			ApiTokenExpires: timestamppb.New(l.clock.Now().Add(24 * time.Hour)), Namespace: "isthmus-spoke-eu"}, nil
	}
	if err := l.hub.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.hub.Stop() })
	l.write("ca.crt", string(l.hub.Bundle()))
	return l
}

func (l *link) write(name, text string) {
	l.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
}

// start runs a Keeper until the returned function is called, or the test ends.
func (l *link) start() (stop func()) {
	clk := setClock{l.clock, &l.set}
	l.src = identity.NewSourceAt(clk.Now)
	l.keeper = hublink.NewKeeper(hublink.Options{
		Fleet: hubtest.Fleet, Spoke: "eu", Namespace: l.ns, Kubernetes: l.kube,
		Issuer:     identity.Client{Address: l.hub.Address(), Fleet: hubtest.Fleet, Now: clk.Now},
		BundleFile: filepath.Join(l.dir, "ca.crt"), TokenFile: filepath.Join(l.dir, "token"),
		Source: l.src, Clock: clk, Log: slog.New(slog.NewTextHandler(l.Output(), nil)), Metrics: l.metrics,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.keeper.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	l.Cleanup(stop)
	return stop
}

// await lets the clock run, by step at each look, until the Keeper says so.
func (l *link) await(step time.Duration, state hublink.State, contains string) {
	l.Helper()
	l.g.Eventually(func() error {
		s, detail := l.keeper.Status()
		if s == state && strings.Contains(detail, contains) {
			return nil
		}
		l.clock.Step(step)
		return fmt.Errorf("%s: %s", s, detail)
	}).WithTimeout(deadline).WithPolling(10 * time.Millisecond).Should(Succeed())
}

func (l *link) stored() identity.Credentials {
	l.Helper()
	c, err := credentials.Load(l.Context(), l.kube, l.ns)
	if err != nil {
		l.Fatal(err)
	}
	return c
}

func TestJoin(t *testing.T) {
	l := newLink(t, "join")
	l.start()
	l.await(0, hublink.NoToken, "no join token in")
	l.write("token", "wrong")
	l.await(time.Second, hublink.NoToken, "refused the join token")
	before := testutil.CollectAndCount(l.registry, "isthmus_hublink_enrolments_total")
	if before != 1 {
		t.Errorf("%d kinds of outcomes, want 1", before)
	}
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right\n")
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/0123abcd")
	l.g.Eventually(func() error { _, err := credentials.Load(t.Context(), l.kube, l.ns); return err }).WithTimeout(deadline).Should(Succeed())
	c := l.stored()
	if leaf, ok := l.src.Leaf(); !ok || leaf.URIs[0].String() != c.ID.URI() || c.APIToken != "token-1" {
		t.Errorf("stored %+v", c.ID)
	}
}

func TestHubThatIsDownIsWaitedFor(t *testing.T) {
	l := newLink(t, "down")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.hub.Stop()
	l.start()
	l.await(0, hublink.Joining, "cannot join yet")
	if err := l.hub.Serve(); err != nil {
		t.Fatal(err)
	}
	l.await(time.Second, hublink.Joined, "")
}

func TestRestartUsesWhatIsStored(t *testing.T) {
	l := newLink(t, "restart")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	stop := l.start()
	l.await(time.Second, hublink.Joined, "")
	l.g.Eventually(func() error { _, err := credentials.Load(t.Context(), l.kube, l.ns); return err }).WithTimeout(deadline).Should(Succeed())
	stop()
	l.hub.Stop()
	l.start()
	l.await(0, hublink.Joined, "")
	if l.hub.Issued() != 1 {
		t.Errorf("%d certificates issued, want 1", l.hub.Issued())
	}
	if err := l.hub.Serve(); err != nil {
		t.Fatal(err)
	}
}

// The key must not be lost: a namespace that takes no Secret does not cost the token.
func TestTokenIsNotSpentForNothing(t *testing.T) {
	l := newLink(t, "nosecret")
	ns := l.ns
	l.ns = "absent"
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joining, "could not be stored")
	if l.hub.Issued() != 0 {
		t.Fatal("the token was spent")
	}
	if _, err := l.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "absent"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.await(time.Second, hublink.Joined, "")
	l.ns = ns
}

func TestRenewal(t *testing.T) {
	l := newLink(t, "renewal")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	l.g.Eventually(func() error { _, err := credentials.Load(t.Context(), l.kube, l.ns); return err }).WithTimeout(deadline).Should(Succeed())
	first := l.stored()

	t.Run("not before its time", func(*testing.T) {
		l.clock.Step(first.RenewAfter.Sub(l.clock.Now()) - time.Hour)
		l.g.Consistently(l.hub.Issued).WithTimeout(200 * time.Millisecond).Should(Equal(1))
	})
	t.Run("leaf and token together", func(*testing.T) {
		l.g.Eventually(func() string { l.clock.Step(5 * time.Minute); return l.stored().APIToken }).WithTimeout(deadline).Should(Equal("token-2"))
		if c := l.stored(); string(c.Material.Key) == string(first.Material.Key) || c.ID != first.ID {
			t.Error("the leaf is the old one")
		}
	})
	t.Run("after two days without hub, and without a token that is valid", func(*testing.T) {
		l.hub.Stop()
		lapsed := l.stored().APITokenExpires
		l.clock.Step(l.stored().RenewAfter.Sub(l.clock.Now()))
		for range 48 {
			l.clock.Step(time.Hour)
		}
		if !l.clock.Now().After(lapsed) {
			t.Fatal("the token is still valid")
		}
		if err := l.hub.Serve(); err != nil {
			t.Fatal(err)
		}
		l.g.Eventually(func() string { l.clock.Step(time.Minute); return l.stored().APIToken }).WithTimeout(deadline).Should(Equal("token-3"))
		if s, detail := l.keeper.Status(); s != hublink.Joined {
			t.Errorf("%s: %s", s, detail)
		}
	})
	t.Run("at once when the API server refuses the token", func(*testing.T) {
		// As each refused request asks for it; right after a renewal it is not heard.
		l.g.Eventually(func() string {
			l.keeper.Refresh()
			l.clock.Step(time.Second)
			return l.stored().APIToken
		}).WithTimeout(deadline).Should(Equal("token-4"))
	})
}

func TestDeletedSpokeJoinsAnew(t *testing.T) {
	l := newLink(t, "deleted")
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	l.hub.Delete("eu")
	l.keeper.Refresh()
	l.await(time.Second, hublink.Rejected, "deleted")
	if n := testutil.ToFloat64(gauge(t, l.registry, "isthmus_hublink_rejected")); n != 1 {
		t.Errorf("rejected = %v", n)
	}
	// Nothing but another token helps.
	l.hub.Admit("eu", "89abcdef", "second")
	for range 30 {
		l.clock.Step(time.Second)
	}
	if s, detail := l.keeper.Status(); s != hublink.Rejected {
		t.Fatalf("%s: %s", s, detail)
	}
	l.write("token", "second")
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/89abcdef")
	if n := testutil.ToFloat64(gauge(t, l.registry, "isthmus_hublink_rejected")); n != 0 {
		t.Errorf("rejected = %v", n)
	}
}

func TestCredentialsOfAnotherSpokeAreNotUsed(t *testing.T) {
	l := newLink(t, "other")
	l.hub.Admit("us", "0123abcd", "for-us")
	c, err := identity.Client{Address: l.hub.Address(), Fleet: hubtest.Fleet, Now: l.clock.Now}.Enroll(t.Context(), l.hub.Bundle(), "us", "for-us")
	if err != nil {
		t.Fatal(err)
	}
	if err := credentials.Save(t.Context(), l.kube, l.ns, c); err != nil {
		t.Fatal(err)
	}
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "/spoke/eu/")
}

// Relays follow what the controller stores.
func TestFollow(t *testing.T) {
	l := newLink(t, "follow")
	src := identity.NewSourceAt(l.clock.Now)
	got := make(chan identity.Credentials, 10)
	failed := make(chan error, 10)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- credentials.Follow(ctx, l.kube, l.ns, src, credentials.Observer{
			Changed: func(c identity.Credentials) { got <- c }, Failed: func(err error) { failed <- err },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	select {
	case c := <-got:
		if c.APIToken != "token-1" || c.Namespace != "isthmus-spoke-eu" {
			t.Errorf("followed %+v", c.ID)
		}
	case <-time.After(deadline):
		t.Fatal("nothing followed")
	}
	leaf, _ := src.Leaf()
	if want, _ := l.src.Leaf(); leaf == nil || !leaf.Equal(want) {
		t.Error("the follower's leaf is another one")
	}
	s, err := l.kube.CoreV1().Secrets(l.ns).Get(t.Context(), identity.SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Data["tls.key"] = []byte("junk")
	if _, err := l.kube.CoreV1().Secrets(l.ns).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		var invalid *credentials.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("error %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("a broken Secret was not told")
	}
	if still, _ := src.Leaf(); still == nil || !still.Equal(leaf) {
		t.Error("a broken Secret replaced credentials that work")
	}
}

// gauge collects one metric of a registry.
func gauge(t *testing.T, r *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
			g.Set(f.GetMetric()[0].GetGauge().GetValue())
			return g
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}
