package gateway

import (
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
	"github.com/isthmus-dev/isthmus/test/selfsigned"
)

// pair is a certificate and its key, as cert-manager writes them.
func pair(t *testing.T, host string) map[string][]byte {
	t.Helper()
	cert, key := selfsigned.Pair(t, host)
	return map[string][]byte{"tls.crt": cert, "tls.key": key}
}

func tlsSecret(namespace, name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeTLS, Data: data}
}

func tlsListener(name, host, secret string) gatewayv1.Listener {
	return gatewayv1.Listener{Name: gatewayv1.SectionName(name), Port: 443, Protocol: gatewayv1.HTTPSProtocolType, Hostname: ptr.To(gatewayv1.Hostname(host)),
		TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: gatewayv1.ObjectName(secret)}}}}
}

// listenerCondition is a listener's condition as text.
func (f *fixture) listenerCondition(namespace, gateway, listener, kind string) func() string {
	return func() string {
		var g gatewayv1.Gateway
		if err := f.get(&g, namespace, gateway); err != nil {
			return err.Error()
		}
		for _, l := range g.Status.Listeners {
			for _, c := range l.Conditions {
				if string(l.Name) == listener && c.Type == kind {
					return string(c.Status) + " " + c.Reason + ": " + c.Message
				}
			}
		}
		return "none"
	}
}

// Certificates reach the selected clusters and no other, follow renewals, stay when the Secret breaks, and go when nobody
// names them any more.
func TestCertificates(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig, func(o *Options) { o.CertificateNamespaces = []string{"tls"} })
	f.namespace("tls", nil)
	f.namespace("closed", nil)
	f.spoke("tls-in", map[string]string{"tls": "yes"})
	f.spoke("tls-out", nil)
	first := pair(t, "a.example.com")
	secret := tlsSecret("tls", "a", first)
	f.create(class(), secret, tlsSecret("closed", "a", first))
	g := gateway("tls", "gw")
	g.Annotations = map[string]string{program.AnnotationSelector: "tls=yes"}
	g.Spec.Listeners = append(g.Spec.Listeners, tlsListener("a", "a.example.com", "a"))
	closed := gateway("closed", "gw")
	closed.Spec.Listeners = append(closed.Spec.Listeners, tlsListener("a", "a.example.com", "a"))
	f.create(g, closed)

	name := program.Name("Secret", "tls", "a")
	bundle := func(spoke string) func() string {
		return func() string {
			var s corev1.Secret
			if err := f.get(&s, "isthmus-spoke-"+spoke, program.Bundle(name)); err != nil {
				return string(apierrors.ReasonForError(err))
			}
			return string(s.Data[name+".crt"]) + string(s.Data[name+".key"])
		}
	}
	hash := func() string {
		p := f.programs("tls-in")["gw"]
		if p == nil || len(p.Spec.Certificates) == 0 {
			return ""
		}
		return p.Spec.Certificates[0].Hash
	}
	f.Eventually(bundle("tls-in")).Should(gomega.Equal(string(first["tls.crt"]) + string(first["tls.key"])))
	f.Eventually(hash).Should(gomega.Equal(program.ChainHash(first["tls.crt"])))
	f.Eventually(f.listenerCondition("closed", "gw", "a", "ResolvedRefs")).Should(gomega.HavePrefix(
		"False InvalidCertificateRef: Secret closed/a: the hub may not read Secrets of namespace closed: add it to the value gateway.certificateNamespaces"))
	f.Expect(bundle("tls-out")()).To(gomega.Equal("NotFound"), "a cluster that is not selected has no certificate")

	second := pair(t, "a.example.com")
	secret.Data = second
	f.Expect(f.api.Update(f.ctx, secret)).To(gomega.Succeed())
	f.Eventually(bundle("tls-in")).Should(gomega.Equal(string(second["tls.crt"]) + string(second["tls.key"])))
	f.Eventually(hash).Should(gomega.Equal(program.ChainHash(second["tls.crt"])))

	// A broken Secret: told, and what is in force stays; also for a hub that has just started.
	secret.Data = map[string][]byte{"tls.crt": second["tls.crt"], "tls.key": first["tls.key"]}
	f.Expect(f.api.Update(f.ctx, secret)).To(gomega.Succeed())
	f.Eventually(f.listenerCondition("tls", "gw", "a", "ResolvedRefs")).Should(gomega.And(
		gomega.HavePrefix("False InvalidCertificateRef: Secret tls/a: no usable certificate: "), gomega.HaveSuffix("; the certificate in force stays")))
	f.stop()
	f.run(apiConfig, func(o *Options) { o.CertificateNamespaces = []string{"tls"} })
	f.passes(2)
	f.Expect(f.writes.take()).To(gomega.BeEmpty())
	f.Expect(bundle("tls-in")()).To(gomega.Equal(string(second["tls.crt"]) + string(second["tls.key"])))

	// Nobody names it any more.
	f.Expect(f.get(g, "tls", "gw")).To(gomega.Succeed())
	g.Spec.Listeners = g.Spec.Listeners[:1]
	f.Expect(f.api.Update(f.ctx, g)).To(gomega.Succeed())
	f.Eventually(bundle("tls-in")).Should(gomega.Equal("NotFound"))
	f.Eventually(hash).Should(gomega.Equal(""))
}
