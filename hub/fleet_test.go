package hub

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/test/freeport"
	"github.com/isthmus-dev/isthmus/test/kubetest"
	"github.com/isthmus-dev/isthmus/test/logbuffer"
)

var apiConfig *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, &apiConfig, kubetest.HubCRDs())) }

// apiServer is that of all tests, with the hub's namespace.
func apiServer(t *testing.T) (*rest.Config, client.Client) {
	t.Helper()
	c, err := client.New(apiConfig, client.Options{Scheme: kubetest.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-system"}}
	if err := c.Create(t.Context(), ns); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return apiConfig, c
}

// replica is one hub of a test.
type replica struct {
	o    Options
	done chan error
	log  *logbuffer.Buffer
	stop func()
}

// startReplica runs a hub until the test ends or stop is called, and returns when it is ready.
func startReplica(t *testing.T, o Options) *replica {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &replica{o: o, done: make(chan error, 1), log: &logbuffer.Buffer{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- Run(ctx, o, slog.New(slog.NewTextHandler(r.log, nil)))
	}()
	r.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("log of the hub at %s:\n%s", o.GRPCAddress, r.log)
		}
	})
	poll(t, "http://"+o.HealthAddress+"/readyz", r.done)
	return r
}

// metric is the value of a line of /metrics, as text; "" if there is none.
func (r *replica) metric(t *testing.T, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + r.o.MetricsAddress + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (r *replica) leads(t *testing.T) bool { return r.metric(t, "isthmus_hub_leader") == "1" }

// leader waits until exactly one of the replicas leads, and returns it first.
func leader(t *testing.T, a, b *replica) (leads, other *replica) {
	t.Helper()
	wait(t, func() error {
		switch x, y := a.leads(t), b.leads(t); {
		case x && !y:
			leads, other = a, b
		case y && !x:
			leads, other = b, a
		default:
			return fmt.Errorf("leading: %t, %t", x, y)
		}
		return nil
	})
	return leads, other
}

// testOptions are those of a replica on an API server.
func testOptions(t *testing.T, cfg *rest.Config) Options {
	t.Helper()
	o := Options{
		Fleet: "fleet", Namespace: "isthmus-system", GRPCAddress: freeport.Address(t), AdvertiseAddress: "hub.example.com:8443",
		APIServerURL: cfg.Host, MetricsAddress: freeport.Address(t), HealthAddress: freeport.Address(t), DebugAddress: freeport.Address(t),
		LeaseDuration: 10 * time.Second, MassPercent: 50, StartGrace: 5 * time.Second, Limits: DefaultLimits(), Keepalive: DefaultKeepalive(), Certificates: DefaultCertificates(), Kubeconfig: kubeconfig(t, cfg),
	}
	if !strings.HasPrefix(o.APIServerURL, "https://") {
		o.APIServerURL = "https://" + o.APIServerURL
	}
	return o
}

// enrol admits a spoke, takes its credentials from a hub, and exports agents as it would.
func enrol(t *testing.T, c client.Client, at *replica, name string, agents ...string) *identity.Source {
	t.Helper()
	ctx := t.Context()
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"*"}}}
	if err := c.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	var join corev1.Secret
	wait(t, func() error {
		return c.Get(ctx, client.ObjectKey{Namespace: "isthmus-spoke-" + name, Name: "join"}, &join)
	})
	var values struct {
		Hub  struct{ CABundle string }
		Join struct{ Token string }
	}
	if err := yaml.Unmarshal(join.Data["values.yaml"], &values); err != nil {
		t.Fatal(err)
	}
	var creds identity.Credentials
	wait(t, func() (err error) {
		creds, err = identity.Client{Address: at.o.GRPCAddress, Fleet: "fleet"}.Enroll(ctx, []byte(values.Hub.CABundle), name, values.Join.Token)
		return err
	})
	export(t, c, name, agents...)
	src := identity.NewSource()
	if err := src.Set(creds.Material); err != nil {
		t.Fatal(err)
	}
	return src
}

// export writes a slice of agents and the report that counts it.
func export(t *testing.T, c client.Client, name string, agents ...string) {
	t.Helper()
	slice := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-" + name, Name: "shop.0"}}
	slice.Spec = v1alpha1.AgentSliceSpec{Spoke: name, SourceNamespace: "shop"}
	for _, a := range agents {
		slice.Spec.Resources = append(slice.Spec.Resources, v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: a, Readiness: v1alpha1.Ready})
	}
	count, hash := digest.Of([]v1alpha1.AgentSliceSpec{slice.Spec})
	report := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: slice.Namespace, Name: v1alpha1.ReportName}}
	report.Spec = v1alpha1.SpokeReportSpec{Spoke: name, Session: "s1", Slices: v1alpha1.SliceDigest{Count: &count, Hash: hash},
		Routers: []v1alpha1.RouterAddress{{Host: "203.0.113.1", Port: 15443}}}
	for _, o := range []client.Object{slice, report} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// router follows hubs as a relay does.
type router struct {
	mu      sync.Mutex
	held    map[string]map[string]delta.Resource
	synced  map[string]bool // of this stream
	sent    int             // resources sent and removed on this stream
	breaks  int
	epoch   string
	refused string // the last error of a stream
	gate    *gate  // nil: it answers at once
}

var routerTypes = []string{delta.ClusterType, delta.AssignmentType, delta.ExtensionType, delta.ScopeType}

func newRouter() *router { return &router{held: map[string]map[string]delta.Resource{}} }

// follow connects the router to a hub with a spoke's certificate, until the function that it returns is called.
func (r *router) follow(t *testing.T, src *identity.Source, address string) (leave func()) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(src, "fleet"))))
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.synced, r.sent, r.breaks = map[string]bool{}, 0, 0
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	c := delta.NewClient(conn, delta.ClientOptions{Node: &corev3.Node{Id: "test"}, Types: routerTypes, Held: r.versions, Apply: r.apply, Seen: r.seen,
		Disconnected: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.breaks, r.refused = r.breaks+1, fmt.Sprint(err)
		}})
	go func() {
		defer close(done)
		_ = c.Run(ctx) // ends with the context
	}()
	var once sync.Once
	leave = func() {
		once.Do(func() {
			cancel()
			<-done
			_ = conn.Close()
		})
	}
	t.Cleanup(leave)
	return leave
}

func (r *router) versions(typeURL string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	for name, x := range r.held[typeURL] {
		out[name] = x.Version
	}
	return out
}

func (r *router) apply(ctx context.Context, u delta.Update) error {
	r.mu.Lock()
	g := r.gate
	r.mu.Unlock()
	if g != nil {
		if err := g.pass(ctx, u); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[u.Type] == nil {
		r.held[u.Type] = map[string]delta.Resource{}
	}
	for _, x := range u.Upsert {
		r.held[u.Type][x.Name] = x
	}
	for _, name := range u.Remove {
		delete(r.held[u.Type], name)
	}
	r.sent += len(u.Upsert) + len(u.Remove)
	r.epoch = u.Identifier
	if u.Synced {
		r.synced[u.Type] = true
	}
	return nil
}

// seen is what the router tells a hub that it has seen.
func (r *router) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// settled waits until every type was synced on this stream, and a table is held.
func (r *router) settled(t *testing.T, table string) {
	t.Helper()
	wait(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.held[delta.ScopeType][table]; !ok || len(r.synced) < len(routerTypes) {
			return fmt.Errorf("synced %v, held %v, stream's last error %s", r.synced, slices.Collect(maps.Keys(r.held[delta.ScopeType])), r.refused)
		}
		return nil
	})
}

// resent is what this stream was sent.
func (r *router) resent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

func (r *router) broken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.breaks
}

// cut is a way to an API server that can be cut: hubs reach the server through it, the test itself does not.
func cut(t *testing.T, cfg *rest.Config) (through *rest.Config, now func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	through = rest.CopyConfig(cfg)
	through.Host = "https://" + l.Addr().String()
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.Trim(strings.TrimPrefix(cfg.Host, "https:"), "/"))
			if err != nil {
				_ = from.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })
			running.Go(func() { _, _ = io.Copy(to, from); _ = to.Close() })
			running.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
		}
	})
	now = func() {
		end()
		_ = l.Close()
		running.Wait()
	}
	t.Cleanup(now)
	return through, now
}
