package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

func TestOptionsAreValidated(t *testing.T) {
	good := Options{
		Fleet: "fleet", Namespace: "isthmus-system", GRPCAddress: ":8443", AdvertiseAddress: "hub.example.com:8443",
		APIServerURL: "https://api.example.com", MetricsAddress: ":8080", HealthAddress: ":8081", DebugAddress: ":8082",
		LeaseDuration: 10 * time.Second, MassPercent: 50, StartGrace: time.Second, Limits: DefaultLimits(), Keepalive: DefaultKeepalive(), Certificates: DefaultCertificates(),
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for flag, change := range map[string]func(*Options){
		"--fleet":                  func(o *Options) { o.Fleet = "No Domain" },
		"--namespace":              func(o *Options) { o.Namespace = "" },
		"--grpc-address":           func(o *Options) { o.GRPCAddress = "8443" },
		"--grpc-advertise-address": func(o *Options) { o.AdvertiseAddress = "hub" },
		"--api-server-url":         func(o *Options) { o.APIServerURL = "http://api" },
		"--debug-address":          func(o *Options) { o.DebugAddress = ":x" },
		"--lease-duration":         func(o *Options) { o.LeaseDuration = 7 * time.Second },
		"--mass-expiry-percent":    func(o *Options) { o.MassPercent = 101 },
		"--certificate-lifetime":   func(o *Options) { o.Certificates.Life = time.Second },
		"-renewal-grace":           func(o *Options) { o.Certificates.Grace = -time.Hour },
		"--keepalive: interval":    func(o *Options) { o.Keepalive.Interval = 10 * time.Millisecond },
		"timeout 2m0s":             func(o *Options) { o.Keepalive.Timeout = 2 * time.Minute },
		"--start-grace":            func(o *Options) { o.StartGrace = 0 },
		"--spoke-max-entries":      func(o *Options) { o.Limits.Entries = 0 },
		"--spoke-change-rate":      func(o *Options) { o.Limits.ChangeRate = -1 },
	} {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: error %v, want one that names the flag", flag, err)
		}
	}
}

// The whole hub on a real API server: it starts, admits a Spoke, becomes ready and answers its operators.
func TestRun(t *testing.T) {
	cfg, c := apiServer(t)
	ctx := t.Context()
	o := testOptions(t, cfg)
	epochs := map[string]bool{}
	for range 2 { // the second hub finds the epoch of the first
		runCtx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		var log bytes.Buffer
		go func() { done <- Run(runCtx, o, slog.New(slog.NewTextHandler(&log, nil))) }()
		body := poll(t, "http://"+o.HealthAddress+"/readyz", done)
		if body != "ok" {
			t.Errorf("/readyz %q", body)
		}
		var r debugapi.Resources
		if err := json.Unmarshal([]byte(poll(t, "http://"+o.DebugAddress+"/debug/resources", done)), &r); err != nil {
			t.Error(err)
		}
		if !r.Serving || r.Epoch == "" {
			t.Errorf("debug %+v, want serving with an epoch", r)
		}
		epochs[r.Epoch] = true
		if m := poll(t, "http://"+o.MetricsAddress+"/metrics", done); !strings.Contains(m, "isthmus_hub_build_seconds_count") {
			t.Error("no isthmus_hub_build_seconds_count in /metrics")
		}
		checkTLS(t, o.GRPCAddress)
		admit(t, c)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hub ended with %v\n%s", err, log.String())
		}
	}
	if len(epochs) != 1 {
		t.Errorf("epochs %v, want one", epochs)
	}
}

// admit creates a Spoke and waits for its join Secret: controllers run, under the leader's lock.
func admit(t *testing.T, c client.Client) {
	t.Helper()
	ctx := t.Context()
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"*"}}}
	if err := c.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	var join corev1.Secret
	wait(t, func() error {
		return c.Get(ctx, client.ObjectKey{Namespace: "isthmus-spoke-" + s.Name, Name: "join"}, &join)
	})
	if !strings.Contains(string(join.Data["values.yaml"]), "hub.example.com:8443") {
		t.Errorf("join Secret without the hub's address:\n%s", join.Data["values.yaml"])
	}
}

func checkTLS(t *testing.T, address string) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	if state.Version != tls.VersionTLS13 || state.PeerCertificates[0].URIs[0].String() != "spiffe://fleet/hub" {
		t.Errorf("TLS %x, URI %v", state.Version, state.PeerCertificates[0].URIs)
	}
}

func poll(t *testing.T, url string, done <-chan error) string {
	t.Helper()
	var out string
	wait(t, func() error {
		select {
		case err := <-done:
			t.Fatalf("the hub ended: %v", err)
		default:
		}
		resp, err := http.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", resp.Status, b)
		}
		out = string(b)
		return err
	})
	return out
}

func wait(t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for err := f(); err != nil; err = f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %v", err)
		}
	}
}

func kubeconfig(t *testing.T, cfg *rest.Config) string {
	t.Helper()
	api := clientcmdapi.NewConfig()
	api.Clusters["c"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	api.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}
	api.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	api.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*api, file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	return file
}
