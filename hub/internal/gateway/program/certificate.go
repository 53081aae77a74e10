package program

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// readCertificates resolves a listener's certificateRefs. A Secret that is missing or broken leaves the certificate that is
// in force; a reference that is not, or no longer, permitted does not.
func (c *compiler) readCertificates(g *gatewayv1.Gateway, l *listener) {
	tls := l.spec.TLS
	if tls == nil || len(tls.CertificateRefs) == 0 || ptr.Deref(tls.Mode, gatewayv1.TLSModeTerminate) != gatewayv1.TLSModeTerminate {
		l.accepted = problem{string(gatewayv1.ListenerReasonUnsupportedValue), "a listener of protocol HTTPS needs tls.mode Terminate and tls.certificateRefs"}
		return
	}
	var wrong []string
	fail := func(reason gatewayv1.ListenerConditionReason, format string, args ...any) {
		if l.refs.ok() || l.refs.reason == string(gatewayv1.ListenerReasonInvalidRouteKinds) {
			l.refs.reason = string(reason)
		}
		wrong = append(wrong, fmt.Sprintf(format, args...))
	}
	for _, ref := range tls.CertificateRefs {
		group, kind := ptr.Deref(ref.Group, ""), ptr.Deref(ref.Kind, "Secret")
		key := types.NamespacedName{Namespace: string(ptr.Deref(ref.Namespace, gatewayv1.Namespace(g.Namespace))), Name: string(ref.Name)}
		if group != "" || kind != "Secret" {
			fail(gatewayv1.ListenerReasonInvalidCertificateRef, "certificateRef %s is a %s: only Secrets are supported", key, kind)
			continue
		}
		if key.Namespace != g.Namespace && !c.grants.allow("Gateway", g.Namespace, "", "Secret", key.Namespace, key.Name) {
			fail(gatewayv1.ListenerReasonRefNotPermitted, "Secret %s is in another namespace: it needs a ReferenceGrant there, from Gateways of %s", key, g.Namespace)
			continue
		}
		name, told := c.certificate(key)
		if told != "" {
			fail(gatewayv1.ListenerReasonInvalidCertificateRef, "%s", told)
		}
		if name != "" && !slices.Contains(l.certificates, name) {
			l.certificates = append(l.certificates, name)
		}
	}
	if len(wrong) > 0 {
		l.refs.message = strings.Join(wrong, "; ")
	}
}

// certificate takes a Secret's certificate into the output, or the one in force when the Secret is no good. The name is ""
// when there is neither.
func (c *compiler) certificate(key types.NamespacedName) (name, told string) {
	c.out.Secrets[key] = true
	name = Name("Secret", key.Namespace, key.Name)
	if _, ok := c.out.Certificates[name]; ok {
		return name, c.in.Certificate(key).Problem
	}
	cert := c.in.Certificate(key)
	if cert.Problem != "" {
		told = fmt.Sprintf("Secret %s: %s", key, cert.Problem)
		held, ok := c.in.Issued(name)
		if !ok {
			return "", told
		}
		cert, told = held, told+"; the certificate in force stays"
	}
	size := len(cert.Chain) + len(cert.Key) + 2*len(name)
	if bundle := Bundle(name); c.bundles[bundle]+size > maxBundle {
		return "", fmt.Sprintf("Secret %s: there are more certificates than a spoke can be given", key)
	}
	c.bundles[Bundle(name)] += size
	c.out.Certificates[name] = Certificate{Chain: cert.Chain, Key: cert.Key}
	return name, told
}

func (c *compiler) programCertificates(names []string) []v1alpha1.ProgramCertificate {
	var out []v1alpha1.ProgramCertificate
	for _, name := range names {
		out = append(out, v1alpha1.ProgramCertificate{Name: name, Bundle: Bundle(name), Hash: ChainHash(c.out.Certificates[name].Chain)})
	}
	return out
}
