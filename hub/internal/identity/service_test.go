package identity

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var (
	apiConfig *rest.Config
	api       client.Client
)

func TestMain(m *testing.M) { os.Exit(kubetest.RunWithClient(m, &apiConfig, &api, kubetest.HubCRDs())) }

// hub is one replica: the service behind a real port.
type hub struct {
	service  *Service
	clock    *clocktesting.FakeClock
	registry *prometheus.Registry
	events   *events.FakeRecorder
	address  string
	ns       string
}

func namespace(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}
	if err := api.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
}

func newHub(t *testing.T, ns string, clk *clocktesting.FakeClock) *hub {
	t.Helper()
	return newHubOf(t, ns, clk, Leaves{})
}

func newHubOf(t *testing.T, ns string, clk *clocktesting.FakeClock, leaves Leaves) *hub {
	t.Helper()
	h := &hub{clock: clk, registry: prometheus.NewRegistry(), events: events.NewFakeRecorder(100), ns: ns}
	var err error
	h.service, err = NewService(t.Context(), Options{
		Client: api, Namespace: ns, Fleet: "fleet", APIServer: apiConfig.Host, APICA: apiConfig.CAData,
		Recorder: h.events, Registerer: h.registry, Log: slog.New(slog.DiscardHandler), Clock: clk, Rand: func() float64 { return 0.5 }, Leaves: leaves,
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(h.service.Source()))))
	identitypb.RegisterIdentityServer(srv, h.service)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(srv.Stop)
	h.address = ln.Addr().String()
	return h
}

func (h *hub) client() identity.Client {
	return identity.Client{Address: h.address, Fleet: "fleet", Now: h.clock.Now}
}

func (h *hub) enroll(t *testing.T, spoke, token string) (identity.Credentials, error) {
	t.Helper()
	return h.client().Enroll(t.Context(), h.service.Bundle(), spoke, token)
}

// enrolled is a hub in a namespace of this name, and what its one spoke got, which has the name too. The hub's clock is that of the machine until it is moved.
func enrolled(t *testing.T, name string, leaves Leaves) (*hub, *clocktesting.FakeClock, identity.Credentials) {
	t.Helper()
	namespace(t, name, nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHubOf(t, name, clk, leaves)
	_, token := admit(t, name, clk.Now())
	creds, err := h.enroll(t, name, token)
	if err != nil {
		t.Fatal(err)
	}
	return h, clk, creds
}

// admit makes what the Spoke controller would make, and returns the token.
func admit(t *testing.T, name string, now time.Time) (*v1alpha1.Spoke, string) {
	t.Helper()
	spoke := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"isthmus.dev/spoke"}}}
	spoke.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	if err := api.Create(t.Context(), spoke); err != nil {
		t.Fatal(err)
	}
	ns := identity.SpokeNamespace(name)
	namespace(t, ns, map[string]string{SpokeUIDAnnotation: string(spoke.UID)})
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: ServiceAccountName}}
	if err := api.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	token, err := NewToken()
	if err != nil {
		t.Fatal(err)
	}
	join := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: JoinSecretName}, Data: map[string][]byte{"values.yaml": []byte("x")}}
	MarkToken(join, token, spoke.UID, now)
	if err := api.Create(t.Context(), join); err != nil {
		t.Fatal(err)
	}
	return spoke, token
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

func (h *hub) wantEvent(t *testing.T, parts ...string) {
	t.Helper()
	select {
	case e := <-h.events.Events:
		for _, p := range parts {
			if !strings.Contains(e, p) {
				t.Errorf("event %q lacks %q", e, p)
			}
		}
	default:
		t.Errorf("no event, want one with %q", parts)
	}
}

// TestJoinAndRenew takes a spoke from its token to a renewed leaf; the API token is that of its own account.
func TestJoinAndRenew(t *testing.T) {
	namespace(t, "join", nil)
	h := newHub(t, "join", clocktesting.NewFakeClock(time.Now()))
	spoke, token := admit(t, "join", h.clock.Now())
	creds, err := h.enroll(t, "join", token)
	if err != nil {
		t.Fatal(err)
	}
	if want := (identity.ID{Fleet: "fleet", Name: "join", UID8: string(spoke.UID)[:8]}); creds.ID != want {
		t.Errorf("identity %v, want %v", creds.ID, want)
	}
	if creds.Namespace != "isthmus-spoke-join" || creds.APIServer != apiConfig.Host {
		t.Errorf("namespace %q, API server %q", creds.Namespace, creds.APIServer)
	}
	h.wantEvent(t, "Enrolled")
	whoIs(t, creds, "system:serviceaccount:isthmus-spoke-join:spoke")
	var join corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: creds.Namespace, Name: JoinSecretName}, &join); !apierrors.IsNotFound(err) {
		t.Errorf("join Secret after the enrolment: %v", err)
	}
	var account corev1.ServiceAccount
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: creds.Namespace, Name: ServiceAccountName}, &account); err != nil {
		t.Fatal(err)
	}
	if account.Annotations[EnrolledAnnotation] == "" {
		t.Error("the enrolment left no mark")
	}
	// The first of the ends is the token's: a third of 24 h and half of the jitter.
	if got := creds.RenewAfter.Sub(h.clock.Now()); got < 8*time.Hour || got > 8*time.Hour+48*time.Minute {
		t.Errorf("renewal after %s", got)
	}
	h.clock.Step(8 * time.Hour)
	renewed, err := h.client().Renew(t.Context(), h.source(t, creds))
	if err != nil {
		t.Fatal(err)
	}
	if renewed.ID != creds.ID || !renewed.RenewAfter.After(creds.RenewAfter) || renewed.APIToken == creds.APIToken {
		t.Errorf("renewed %v until %v", renewed.ID, renewed.RenewAfter)
	}
	whoIs(t, renewed, "system:serviceaccount:isthmus-spoke-join:spoke")
	if n := testutil.ToFloat64(h.service.metrics.renewals.WithLabelValues("ok")); n != 1 {
		t.Errorf("%v renewals counted", n)
	}
}

func (h *hub) source(t *testing.T, c identity.Credentials) *identity.Source {
	t.Helper()
	src := identity.NewSourceAt(h.clock.Now)
	if err := src.Set(c.Material); err != nil {
		t.Fatal(err)
	}
	return src
}

func whoIs(t *testing.T, c identity.Credentials, want string) {
	t.Helper()
	cs, err := kubernetes.NewForConfig(&rest.Config{Host: c.APIServer, BearerToken: c.APIToken, TLSClientConfig: rest.TLSClientConfig{CAData: c.APICA}})
	if err != nil {
		t.Fatal(err)
	}
	// Not allowed, but the refusal names the caller.
	_, err = cs.CoreV1().Secrets("default").Get(t.Context(), "x", metav1.GetOptions{})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("with the API token: %v, want a refusal of %s", err, want)
	}
}

func TestTokensRefused(t *testing.T) {
	namespace(t, "tokens", nil)
	h := newHub(t, "tokens", clocktesting.NewFakeClock(time.Now()))
	_, tokenA := admit(t, "token-a", h.clock.Now())
	_, tokenB := admit(t, "token-b", h.clock.Now())
	_, tokenC := admit(t, "token-c", h.clock.Now())
	refused := 0.0
	refuse := func(what, spoke, token string, event ...string) {
		t.Helper()
		_, err := h.enroll(t, spoke, token)
		wantCode(t, what, err, codes.Unauthenticated)
		if refused++; testutil.ToFloat64(h.service.metrics.enrolments.WithLabelValues("refused")) != refused {
			t.Errorf("%s: not counted", what)
		}
		if len(event) > 0 {
			h.wantEvent(t, append(event, "EnrolmentRefused")...)
		}
	}
	refuse("a made-up token", "token-a", "made-up", "not this Spoke's")
	refuse("the token of another", "token-b", tokenA, "not this Spoke's")
	refuse("no such Spoke", "token-z", tokenA)
	if _, err := h.enroll(t, "token-a", tokenA); err != nil {
		t.Fatalf("the refused calls used the token up: %v", err)
	}
	h.wantEvent(t, "Enrolled")
	refuse("a second use", "token-a", tokenA, "with another key")
	h.clock.Step(time.Hour - 2*time.Second)
	if _, err := h.enroll(t, "token-b", tokenB); err != nil {
		t.Fatalf("in the last seconds of its hour: %v", err)
	}
	h.wantEvent(t, "Enrolled")
	h.clock.Step(2 * time.Second)
	refuse("a late token", "token-c", tokenC, "expired")
}

func TestMalformedRequests(t *testing.T) {
	namespace(t, "malformed", nil)
	h := newHub(t, "malformed", clocktesting.NewFakeClock(time.Now()))
	_, token := admit(t, "malformed", h.clock.Now())
	_, csr, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	for what, req := range map[string]*identitypb.EnrollRequest{
		"bad name": {Spoke: "../x", Token: token, Csr: csr},
		"no csr":   {Spoke: "malformed", Token: token},
	} {
		_, err := h.service.Enroll(t.Context(), req)
		wantCode(t, what, err, codes.InvalidArgument)
	}
	_, err = h.service.Renew(t.Context(), &identitypb.RenewRequest{Csr: csr})
	wantCode(t, "renewal without a leaf", err, codes.Unauthenticated)
}

// TestOneTokenTwoReplicas: whatever the interleaving, one call of many gets credentials.
func TestOneTokenTwoReplicas(t *testing.T) {
	namespace(t, "race", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	replicas := []*hub{newHub(t, "race", clk), newHub(t, "race", clk)}
	for round := range 5 {
		name := fmt.Sprintf("race-%d", round)
		_, token := admit(t, name, clk.Now())
		errs := make([]error, 8)
		var calls sync.WaitGroup
		for i := range errs {
			calls.Go(func() { _, errs[i] = replicas[i%2].enroll(t, name, token) })
		}
		calls.Wait()
		ok := 0
		for _, err := range errs {
			if err == nil {
				ok++
				continue
			}
			wantCode(t, "a loser", err, codes.Unauthenticated)
		}
		if ok != 1 {
			t.Errorf("%d of %d calls with one token got credentials: %v", ok, len(errs), errs)
		}
	}
}

// TestTwoDaysGone: hub and API token were away; the leaf, still good, renews both.
func TestTwoDaysGone(t *testing.T) {
	_, clk, creds := enrolled(t, "gone", Leaves{})
	clk.Step(48 * time.Hour)
	if !creds.APITokenExpires.Before(clk.Now()) {
		t.Fatal("the API token should have lapsed")
	}
	back := newHub(t, "gone", clk) // a new process: nothing but what is in the API
	renewed, err := back.client().Renew(t.Context(), back.source(t, creds))
	if err != nil {
		t.Fatal(err)
	}
	if !renewed.APITokenExpires.After(clk.Now()) || renewed.ID != creds.ID {
		t.Errorf("renewed %v until %v", renewed.ID, renewed.APITokenExpires)
	}
}

func TestRevokedSpokes(t *testing.T) {
	namespace(t, "revoked", nil)
	h := newHub(t, "revoked", clocktesting.NewFakeClock(time.Now()))
	spoke, token := admit(t, "revoked", h.clock.Now())
	creds, err := h.enroll(t, "revoked", token)
	if err != nil {
		t.Fatal(err)
	}
	src := h.source(t, creds)
	if err := api.Delete(t.Context(), spoke); err != nil {
		t.Fatal(err)
	}
	_, err = h.client().Renew(t.Context(), src)
	wantCode(t, "a Spoke that is being deleted", err, codes.PermissionDenied)
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(spoke), spoke); err != nil {
		t.Fatal(err)
	}
	spoke.Finalizers = nil
	if err := api.Update(t.Context(), spoke); err != nil {
		t.Fatal(err)
	}
	_, err = h.client().Renew(t.Context(), src)
	wantCode(t, "a Spoke that is gone", err, codes.PermissionDenied)
	again := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "revoked"}}
	again.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	if err := api.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	_, err = h.client().Renew(t.Context(), src)
	wantCode(t, "another Spoke of that name", err, codes.PermissionDenied)
}
