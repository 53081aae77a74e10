package spoke

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
	"github.com/isthmus-dev/isthmus/spoke/internal/hubtest"
	"github.com/isthmus-dev/isthmus/test/freeport"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

const patience = time.Minute

// fixture is one API server as cluster and hub, with the hub's Identity service beside it.
type fixture struct {
	*testing.T
	g    *WithT
	c    client.Client
	kube kubernetes.Interface
	hub  *hubtest.Hub
	opts ControllerOptions
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	config := kubetest.For(t, kubetest.HubCRDs(), kubetest.KAOS("crds"))
	scheme := runtime.NewScheme()
	_, _ = v1alpha1.AddToScheme(scheme), clientgoscheme.AddToScheme(scheme)
	f := &fixture{T: t, g: NewWithT(t), kube: kubernetes.NewForConfigOrDie(config)}
	var err error
	if f.c, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if f.hub, err = hubtest.NewHub(time.Now); err != nil {
		t.Fatal(err)
	}
	f.hub.Answer = func(id identity.ID) (*identitypb.Credentials, error) { return f.admit(config, id) }
	for _, ns := range []string{"isthmus-system", "team"} {
		f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := f.hub.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.hub.Stop() })
	f.hub.Admit("eu", "0123abcd", "right")
	metrics, health := freeport.Address(t), freeport.Address(t)
	f.opts = ControllerOptions{
		Fleet: hubtest.Fleet, Spoke: "eu", Namespace: "isthmus-system", HubAddress: f.hub.Address(),
		HubCAFile: write("ca.crt", f.hub.Bundle()), JoinTokenFile: write("token", []byte("right")),
		MetricsAddress: metrics, HealthAddress: health, RouterService: "isthmus-router", RouterAddress: "192.0.2.1:15443",
		Kubeconfig: write("kubeconfig", kubeconfig(t, config)), Version: "v1.2.3", Pod: "isthmus-spoke-0",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return f
}

// admit does what the hub does for a member: a namespace, rights, a token of a ServiceAccount.
func (f *fixture) admit(config *rest.Config, id identity.ID) (*identitypb.Credentials, error) {
	ctx, ns := context.Background(), "isthmus-spoke-"+id.Name
	_, _ = f.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
	_, _ = f.kube.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "spoke"}}, metav1.CreateOptions{})
	// As in docs/contracts.md.
	_, _ = f.kube.RbacV1().Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "spoke"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"isthmus.dev"}, Resources: []string{"agentslices"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: []string{"isthmus.dev"}, Resources: []string{"spokereports"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update", "patch"}},
	}}, metav1.CreateOptions{})
	_, _ = f.kube.RbacV1().RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "spoke"},
		RoleRef:  rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "spoke"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "spoke", Namespace: ns}}}, metav1.CreateOptions{})
	token, err := f.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "spoke", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	host := config.Host
	if !strings.HasPrefix(host, "https://") {
		host = "https://" + host
	}
	return &identitypb.Credentials{ApiServer: host, ApiCa: config.CAData, ApiToken: token.Status.Token,
		ApiTokenExpires: timestamppb.New(token.Status.ExpirationTimestamp.Time), Namespace: ns}, nil
}

func kubeconfig(t *testing.T, config *rest.Config) []byte {
	t.Helper()
	out, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:  map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}},
		Contexts:  map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *fixture) create(o client.Object) {
	f.Helper()
	if err := f.c.Create(f.Context(), o); err != nil {
		f.Fatal(err)
	}
}

// run runs a controller until the returned function is called, or the test ends.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- RunController(ctx, f.opts) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	}
	f.Cleanup(stop)
	return stop
}

func (f *fixture) get(url string) string {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b)
}

func (f *fixture) ready() {
	f.Helper()
	f.g.Eventually(func() string { return f.get(f.opts.HealthAddress + "/readyz") }).WithTimeout(patience).WithPolling(50 * time.Millisecond).
		Should(And(HavePrefix("200"), ContainSubstring("Joined")))
}

func (f *fixture) agent(name string) {
	f.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"model": "m", "modelAPI": "api"}}}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "kaos.tools", Version: "v1alpha1", Kind: "Agent"})
	u.SetNamespace("team")
	u.SetName(name)
	f.create(u)
}

func (f *fixture) exported() int {
	var list v1alpha1.AgentSliceList
	_ = f.c.List(context.Background(), &list, client.InNamespace("isthmus-spoke-eu"))
	n := 0
	for _, s := range list.Items {
		n += len(s.Spec.Resources)
	}
	return n
}

func (f *fixture) report() v1alpha1.SpokeReportSpec {
	var r v1alpha1.SpokeReport
	_ = f.c.Get(context.Background(), client.ObjectKey{Namespace: "isthmus-spoke-eu", Name: v1alpha1.ReportName}, &r)
	return r.Spec
}

func (f *fixture) renewed() time.Time {
	l, err := f.kube.CoordinationV1().Leases("isthmus-spoke-eu").Get(context.Background(), "spoke", metav1.GetOptions{})
	if err != nil || l.Spec.RenewTime == nil {
		return time.Time{}
	}
	return l.Spec.RenewTime.Time
}

// TestController goes the way of a spoke: join, export, report, Lease; a restart; deletion on the hub, and joining anew.
func TestController(t *testing.T) {
	f := newFixture(t)
	ignore := goleak.IgnoreCurrent()
	f.agent("before")
	stop := f.run()
	f.ready()
	f.g.Eventually(f.exported).WithTimeout(patience).Should(Equal(1))
	f.agent("after")
	f.g.Eventually(f.exported).WithTimeout(patience).Should(Equal(2))
	f.g.Eventually(f.report).WithTimeout(patience).Should(And(
		HaveField("Spoke", "eu"), HaveField("Version", "v1.2.3"), HaveField("Slices.Count", HaveValue(Equal(int32(1)))),
		HaveField("Routers", []v1alpha1.RouterAddress{{Host: "192.0.2.1", Port: 15443}})))
	first := f.renewed()
	f.g.Eventually(f.renewed).WithTimeout(patience).Should(BeTemporally(">", first))
	if text := f.get(f.opts.MetricsAddress + "/metrics"); !strings.Contains(text, `isthmus_export_entries{readiness="NotReady"} 2`) || !strings.Contains(text, "isthmus_hublink_joined 1") {
		t.Errorf("metrics lack what was exported")
	}
	session := f.report().Session

	stop()
	// client-go shares connections to the own API server for the life of the process.
	goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"), goleak.IgnoreAnyFunction("net/http/internal/http2.(*ClientConn).readLoop"))
	if n := f.exported(); n != 2 {
		t.Errorf("%d entries after a stop: stopping is not removing", n)
	}
	stop = f.run()
	f.ready()
	f.g.Eventually(func() string { return f.report().Session }).WithTimeout(patience).ShouldNot(Equal(session))
	if n := f.hub.Issued(); n != 1 {
		t.Errorf("%d certificates issued: a restart must use the stored one", n)
	}

	// Deleted on the hub: the token dies with its ServiceAccount.
	f.hub.Delete("eu")
	if err := f.kube.CoreV1().ServiceAccounts("isthmus-spoke-eu").Delete(t.Context(), "spoke", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.g.Eventually(func() string { return f.get(f.opts.HealthAddress + "/readyz") }).WithTimeout(patience).
		Should(And(HavePrefix("503"), ContainSubstring("Rejected"), ContainSubstring("deleted")))
	f.hub.Admit("eu", "89abcdef", "second")
	if err := os.WriteFile(f.opts.JoinTokenFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.ready()
	f.agent("third")
	f.g.Eventually(f.exported).WithTimeout(patience).Should(Equal(3))
	stop()
}

func TestControllerOptions(t *testing.T) {
	good := ControllerOptions{Fleet: "fleet", Spoke: "eu", Namespace: "isthmus-system", HubAddress: "hub:8443", HubCAFile: "ca", JoinTokenFile: "token", RouterService: "r"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*ControllerOptions){
		"--fleet":           func(o *ControllerOptions) { o.Fleet = "Not a domain" },
		"--spoke":           func(o *ControllerOptions) { o.Spoke = "" },
		"--namespace":       func(o *ControllerOptions) { o.Namespace = "" },
		"--hub-address":     func(o *ControllerOptions) { o.HubAddress = "hub" },
		"--hub-ca-file":     func(o *ControllerOptions) { o.HubCAFile = "" },
		"--join-token-file": func(o *ControllerOptions) { o.JoinTokenFile = "" },
		"--router-service":  func(o *ControllerOptions) { o.RouterService = "" },
		"--router-address":  func(o *ControllerOptions) { o.RouterAddress = "1.2.3.4" },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v does not name it", name, err)
		}
	}
}
