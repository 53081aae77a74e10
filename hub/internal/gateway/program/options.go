package program

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Annotations of a Gateway.
const (
	// AnnotationSelector is a label selector over Spokes; without it every Spoke is selected.
	AnnotationSelector = "isthmus.dev/spoke-selector"
	// AnnotationProgrammed says of how many of the selected clusters Programmed speaks: All (the default) or Any.
	AnnotationProgrammed = "isthmus.dev/programmed"
	// AnnotationDefaultRoute says whether the Gateway gets the route "/" to the cluster's router: Enabled (the default) or Disabled.
	AnnotationDefaultRoute = "isthmus.dev/default-route"
	// AnnotationDNS says whose external-dns acts on the Gateway's annotations: Hub (the default) or Spokes.
	AnnotationDNS = "isthmus.dev/dns"
)

// AnnotationDefaultBackend of a Namespace names the resource that rules without backendRefs of its routes reach: type/name,
// for example agent/front.
const AnnotationDefaultBackend = "isthmus.dev/default-backend"

const (
	dnsPrefix = "external-dns.alpha.kubernetes.io/"
	// dnsController of a route is read by external-dns: a value that is not its own name makes it leave the route alone.
	dnsController = dnsPrefix + "controller"
	// dnsOwn is the value that external-dns takes for its own name.
	dnsOwn = "dns-controller"
	// dnsOnHub is what programmed routes have there whose records are the hub's affair.
	dnsOnHub = "isthmus-hub"
)

// options are what a Gateway's annotations say.
type options struct {
	selector     labels.Selector
	any          bool
	defaultRoute bool
	dnsOnSpokes  bool
}

func optionsOf(g *gatewayv1.Gateway) (options, problem) {
	out := options{selector: labels.Everything(), defaultRoute: true}
	var wrong []string
	one := func(key, first, second string) bool {
		switch v := g.Annotations[key]; v {
		case "", first:
		case second:
			return true
		default:
			wrong = append(wrong, fmt.Sprintf("annotation %s is %q: use %s or %s", key, v, first, second))
		}
		return false
	}
	out.any = one(AnnotationProgrammed, "All", "Any")
	out.defaultRoute = !one(AnnotationDefaultRoute, "Enabled", "Disabled")
	out.dnsOnSpokes = one(AnnotationDNS, "Hub", "Spokes")
	if v := g.Annotations[AnnotationSelector]; v != "" {
		s, err := labels.Parse(v)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("annotation %s is not a label selector: %v", AnnotationSelector, err))
		} else {
			out.selector = s
		}
	}
	if g.Spec.Infrastructure != nil && g.Spec.Infrastructure.ParametersRef != nil {
		wrong = append(wrong, "spec.infrastructure.parametersRef is not supported")
	}
	if tls := g.Spec.TLS; tls != nil && (tls.Backend != nil || tls.Frontend != nil) {
		wrong = append(wrong, "spec.tls is not supported: certificates of clients and towards backends are not programmed")
	}
	if len(wrong) > 0 {
		return out, problem{string(gatewayv1.GatewayReasonInvalidParameters), strings.Join(wrong, "; ")}
	}
	if len(g.Spec.Addresses) > 0 {
		return out, problem{string(gatewayv1.GatewayReasonUnsupportedAddress), "spec.addresses is not supported: each cluster has addresses of its own"}
	}
	return out, problem{}
}

// dnsAnnotations are those of a programmed route: external-dns in a cluster acts on it, with the annotations of the source, or
// leaves it alone. It never acts on both the source and the copies: these are its own only where it is told to leave the
// source alone.
func dnsAnnotations(source map[string]string, onSpokes bool) map[string]string {
	if !onSpokes {
		return map[string]string{dnsController: dnsOnHub}
	}
	out := map[string]string{}
	for k, v := range source {
		if strings.HasPrefix(k, dnsPrefix) && k != dnsController {
			out[k] = v
		}
	}
	return out
}

// dnsLeft says whether external-dns on the hub leaves an object alone.
func dnsLeft(annotations map[string]string) bool {
	v := annotations[dnsController]
	return v != "" && v != dnsOwn
}
