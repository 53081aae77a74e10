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
	// dnsController is read by external-dns: one that is not its own name makes it leave the object alone.
	dnsController = dnsPrefix + "controller"
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
	if out.dnsOnSpokes && g.Annotations[dnsController] == "" {
		wrong = append(wrong, fmt.Sprintf("annotation %s is Spokes: set %s to another name than dns-controller too, or the hub's external-dns would act on the same records", AnnotationDNS, dnsController))
	}
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
