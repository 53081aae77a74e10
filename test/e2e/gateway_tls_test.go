package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/selfsigned"
)

// certificates is the namespace in which the lab's hub may read Secrets.
const certificates = "certificates"

// tlsSecret is a certificate that signs itself, as cert-manager would write it.
func tlsSecret(t *testing.T, name, host string) *corev1.Secret {
	t.Helper()
	cert, key := selfsigned.Pair(t, host)
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: certificates, Name: name}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key,
	}}
}

// certificateGrant lets Gateways of a namespace name the certificates.
func certificateGrant(from string) *unstructured.Unstructured {
	u := gatewayObject("ReferenceGrant", certificates, from, map[string]any{
		"from": []any{map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": from}},
		"to":   []any{map[string]any{"group": "", "kind": "Secret"}},
	})
	u.SetAPIVersion("gateway.networking.k8s.io/v1beta1")
	return u
}

// tlsClient speaks to a cluster's Gateway as a domain, and trusts one certificate alone.
func tlsClient(at *cluster, s *corev1.Secret) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.Data[corev1.TLSCertKey])
	return &http.Client{Timeout: 10 * time.Second, CheckRedirect: noRedirect, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort(hostname(at.gateway), "443"))
		},
	}}
}

func hostname(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Hostname()
	}
	return raw
}

// presents waits until a cluster's Gateway answers with a certificate, and reaches the agent behind it.
func (g *gateways) presents(t *testing.T, at *cluster, s *corev1.Secret) {
	t.Helper()
	hc := tlsClient(at, s)
	eventually(t, "HTTPS at "+at.name+" with the certificate that the Secret has", func(ctx context.Context) error {
		a, err := fetch(ctx, hc, http.MethodGet, "https://stable.example.com/health", nil)
		if err == nil && (a.status != http.StatusOK || a.servedBy != g.stable.name) {
			err = fmt.Errorf("%v", a)
		}
		return err
	})
}

func (g *gateways) testCertificates(t *testing.T) {
	f := theFleet
	for _, c := range f.clusters {
		g.presents(t, c, g.secret)
	}
	t.Run("versions", g.testVersions)
	t.Run("redirect", g.testRedirect)
	t.Run("renewal", func(t *testing.T) {
		began := time.Now()
		g.replace(t, tlsSecret(t, g.secret.Name, "*.example.com").Data)
		for _, c := range f.clusters {
			g.presents(t, c, g.secret)
		}
		t.Logf("in force in all clusters after %s", time.Since(began).Round(time.Millisecond))
	})
	t.Run("broken", func(t *testing.T) {
		good := g.secret.DeepCopy()
		broken := map[string][]byte{corev1.TLSCertKey: good.Data[corev1.TLSCertKey], corev1.TLSPrivateKeyKey: []byte("nonsense")}
		g.replace(t, broken)
		g.refuses(t)
		if err := f.hub.client.Delete(t.Context(), g.secret.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		g.refuses(t)
		g.secret = good
		for _, c := range f.clusters {
			g.presents(t, c, good) // the one in force stays
		}
		g.secret.ResourceVersion, g.secret.UID = "", ""
		createOnHub(t, g.secret)
		eventually(t, "the listener's references resolve", func(ctx context.Context) error {
			return g.listenerSays(ctx, "tls", "ResolvedRefs", "True", "ResolvedRefs")
		})
	})
	t.Run("selected clusters alone", g.testSelected)
	t.Run("no spoke reads another's", testSpokesSecrets)
}

// replace writes the Secret's data anew, as a renewal does.
func (g *gateways) replace(t *testing.T, data map[string][]byte) {
	t.Helper()
	g.secret.Data = data
	if err := theFleet.hub.client.Update(t.Context(), g.secret); err != nil {
		t.Fatal(err)
	}
}

func (g *gateways) refuses(t *testing.T) {
	t.Helper()
	eventually(t, "the listener says that its certificate is no good", func(ctx context.Context) error {
		return g.listenerSays(ctx, "tls", "ResolvedRefs", "False", "InvalidCertificateRef")
	})
}

func (g *gateways) listenerSays(ctx context.Context, listener, kind, status, reason string) error {
	got := g.gw.DeepCopy()
	if err := theFleet.hub.client.Get(ctx, client.ObjectKeyFromObject(g.gw), got); err != nil {
		return err
	}
	all, _, _ := unstructured.NestedSlice(got.Object, "status", "listeners")
	for _, l := range all {
		m := l.(map[string]any)
		if m["name"] != listener {
			continue
		}
		for _, c := range m["conditions"].([]any) {
			if c := c.(map[string]any); c["type"] == kind && c["status"] == status && c["reason"] == reason {
				return nil
			}
		}
	}
	return fmt.Errorf("want %s=%s/%s of listener %s: %v", kind, status, reason, listener, all)
}

// testVersions: TLS 1.2 and 1.3 are spoken, what is older is refused by the Gateway.
func (g *gateways) testVersions(t *testing.T) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(g.secret.Data[corev1.TLSCertKey])
	for version, spoken := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		cfg := &tls.Config{RootCAs: pool, ServerName: "stable.example.com", MinVersion: version, MaxVersion: version}
		d := tls.Dialer{Config: cfg, NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(hostname(g.at.gateway), "443"))
		if err == nil {
			_ = conn.Close()
		}
		switch {
		case spoken && err != nil:
			t.Errorf("%s: %v", tls.VersionName(version), err)
		case !spoken && (err == nil || !strings.Contains(err.Error(), "remote error: tls: protocol version not supported")):
			t.Errorf("%s: %v, want the server's alert about the version", tls.VersionName(version), err)
		}
	}
}

// testRedirect sends what comes by HTTP to HTTPS, for one domain.
func (g *gateways) testRedirect(t *testing.T) {
	createOnHub(t, gatewayObject("HTTPRoute", g.ns, "to-https", map[string]any{
		"parentRefs": []any{map[string]any{"name": "public", "sectionName": "web"}}, "hostnames": []any{"secure.example.com"},
		"rules": []any{map[string]any{"filters": []any{map[string]any{"type": "RequestRedirect", "requestRedirect": map[string]any{"scheme": "https", "statusCode": int64(301)}}}}},
	}))
	secure := gatewayRoute("HTTPRoute", g.ns, "secure", "secure.example.com", "stable")
	secure.Object["spec"].(map[string]any)["parentRefs"] = []any{map[string]any{"name": "public", "sectionName": "tls"}}
	createOnHub(t, secure)
	for _, c := range theFleet.clusters {
		eventually(t, "HTTP to HTTPS at "+c.name, func(ctx context.Context) error {
			a, err := getAs(ctx, c.gateway+"/echo/a?b=c", "secure.example.com")
			if err == nil && (a.status != http.StatusMovedPermanently || a.header.Get("Location") != "https://secure.example.com/echo/a?b=c") {
				err = fmt.Errorf("%v, Location %q", a, a.header.Get("Location"))
			}
			return err
		})
		eventually(t, "what it leads to at "+c.name, func(ctx context.Context) error {
			a, err := fetch(ctx, tlsClient(c, g.secret), http.MethodGet, "https://secure.example.com/echo/a?b=c", nil)
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
	}
}

// testSelected gives a second certificate to one cluster, and takes it away again.
func (g *gateways) testSelected(t *testing.T) {
	f := theFleet
	spoke := &v1alpha1.Spoke{}
	spoke.Name = g.at.name
	label := func(value string) {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"e2e.isthmus.dev/inner":`+value+`}}}`))
		if err := f.hub.client.Patch(context.WithoutCancel(t.Context()), spoke.DeepCopy(), patch); err != nil {
			t.Error(err)
		}
	}
	label(`"yes"`)
	t.Cleanup(func() { label("null") })
	secret := tlsSecret(t, g.ns+"-inner", "inner.example.com")
	createOnHub(t, secret)
	inner := gatewayObject("Gateway", g.ns, "inner", map[string]any{"gatewayClassName": "isthmus", "listeners": []any{map[string]any{
		"name": "tls", "port": int64(8443), "protocol": "HTTPS", "tls": map[string]any{"certificateRefs": []any{map[string]any{"name": secret.Name, "namespace": certificates}}},
	}}})
	inner.SetAnnotations(map[string]string{"isthmus.dev/spoke-selector": "e2e.isthmus.dev/inner=yes"})
	createOnHub(t, inner)
	eventually(t, "the certificate is in "+g.at.name, func(ctx context.Context) error { return g.holds(ctx, g.at, secret, true) })
	for _, c := range f.clusters[1:] {
		if err := g.holds(t.Context(), c, secret, false); err != nil {
			t.Error(err)
		}
	}
	if err := f.hub.client.Delete(t.Context(), inner.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate is gone when nothing names it", func(ctx context.Context) error { return g.holds(ctx, g.at, secret, false) })
	for _, c := range f.clusters {
		if err := g.holds(t.Context(), c, g.secret, true); err != nil {
			t.Errorf("the other certificate: %v", err)
		}
	}
}

// holds says whether a certificate is in a cluster, and in that cluster's namespace on the hub.
func (g *gateways) holds(ctx context.Context, c *cluster, s *corev1.Secret, want bool) error {
	var there, onHub corev1.SecretList
	if err := c.client.List(ctx, &there, client.InNamespace("isthmus-gateways")); err != nil {
		return err
	}
	if err := theFleet.hub.client.List(ctx, &onHub, client.InNamespace(spokeNamespace(c))); err != nil {
		return err
	}
	key := s.Data[corev1.TLSPrivateKeyKey]
	for place, list := range map[string][]corev1.Secret{"the cluster": there.Items, "its namespace on the hub": onHub.Items} {
		has := slices.ContainsFunc(list, func(in corev1.Secret) bool {
			for _, v := range in.Data {
				if bytes.Equal(bytes.TrimSpace(v), bytes.TrimSpace(key)) {
					return true
				}
			}
			return false
		})
		if has != want {
			return fmt.Errorf("%s: the key of %s is in %s: %t, want %t", c.name, s.Name, place, has, want)
		}
	}
	return nil
}

// testSpokesSecrets reads with the credentials that a spoke really has.
func testSpokesSecrets(t *testing.T) {
	f := theFleet
	var identity corev1.Secret
	if err := f.clusters[0].client.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-identity"}, &identity); err != nil {
		t.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(&rest.Config{
		Host: string(identity.Data["api-server"]), BearerToken: string(identity.Data["api-token"]), TLSClientConfig: rest.TLSClientConfig{CAData: identity.Data["api-ca.crt"]},
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want forbidden", what, err)
		}
	}
	for _, bundle := range v1alpha1.ProgramBundles() {
		for _, other := range f.clusters[1:] {
			_, err := kube.CoreV1().Secrets(spokeNamespace(other)).Get(t.Context(), bundle, metav1.GetOptions{})
			refused(bundle+" of "+other.name, err)
		}
		if _, err := kube.CoreV1().Secrets(spokeNamespace(f.clusters[0])).Get(t.Context(), bundle, metav1.GetOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("its own %s: %v", bundle, err)
		}
	}
	for _, ns := range []string{spokeNamespace(f.clusters[0]), spokeNamespace(f.clusters[1]), certificates, metav1.NamespaceAll} {
		_, err := kube.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
		refused("a list of Secrets in "+ns, err)
	}
}
