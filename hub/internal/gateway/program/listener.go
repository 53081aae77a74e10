package program

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// listener is one listener of a Gateway and what was found of it.
type listener struct {
	spec  gatewayv1.Listener
	kinds []gatewayv1.RouteGroupKind // that may attach
	// accepted, refs and conflict are why the listener is not, or not wholly, as its owner wants it.
	accepted, refs, conflict problem
	// namespaces selects those of routes; nil: only the Gateway's own.
	namespaces labels.Selector
	// certificates that it presents, by the name under which they are programmed.
	certificates []string
	attached     int32
	// covered: a user's route takes every request, so that there is none left for the default route.
	covered bool
}

// usable says whether the listener is programmed.
func (l *listener) usable() bool {
	return l.accepted.ok() && l.conflict.ok() && len(l.kinds) > 0 && (!l.terminates() || len(l.certificates) > 0)
}

func (l *listener) terminates() bool { return l.spec.Protocol == gatewayv1.HTTPSProtocolType }

// allows says whether a route of a kind and namespace may attach.
func (l *listener) allows(kind v1alpha1.SourceKind, gatewayNamespace, namespace string, of map[string]string) bool {
	if !slices.ContainsFunc(l.kinds, func(k gatewayv1.RouteGroupKind) bool { return string(k.Kind) == string(kind) }) {
		return false
	}
	if l.namespaces == nil {
		return namespace == gatewayNamespace
	}
	return l.namespaces.Matches(labels.Set(of))
}

func (c *compiler) readListener(g *gatewayv1.Gateway, spec gatewayv1.Listener) *listener {
	l := &listener{spec: spec}
	l.readKinds()
	switch spec.Protocol {
	case gatewayv1.HTTPProtocolType:
	case gatewayv1.HTTPSProtocolType:
		c.readCertificates(g, l)
	default:
		l.kinds = nil
		l.accepted = problem{string(gatewayv1.ListenerReasonUnsupportedProtocol), fmt.Sprintf("protocol %s is not supported: use HTTP or HTTPS", spec.Protocol)}
		return l
	}
	l.readNamespaces()
	return l
}

// readKinds takes the kinds of route that may attach and are known here.
func (l *listener) readKinds() {
	known := []gatewayv1.Kind{gatewayv1.Kind(v1alpha1.SourceHTTPRoute), gatewayv1.Kind(v1alpha1.SourceGRPCRoute)}
	add := func(kind gatewayv1.Kind) {
		l.kinds = append(l.kinds, gatewayv1.RouteGroupKind{Group: ptr.To(gatewayv1.Group(gatewayv1.GroupName)), Kind: kind})
	}
	if l.spec.AllowedRoutes == nil || len(l.spec.AllowedRoutes.Kinds) == 0 {
		for _, kind := range known {
			add(kind)
		}
		return
	}
	for _, k := range l.spec.AllowedRoutes.Kinds {
		if ptr.Deref(k.Group, gatewayv1.GroupName) == gatewayv1.GroupName && slices.Contains(known, k.Kind) {
			add(k.Kind)
			continue
		}
		l.refs = problem{string(gatewayv1.ListenerReasonInvalidRouteKinds), fmt.Sprintf("routes of kind %s are not supported: use HTTPRoute or GRPCRoute", k.Kind)}
	}
}

func (l *listener) readNamespaces() {
	from, selector := gatewayv1.NamespacesFromSame, (*metav1.LabelSelector)(nil)
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil {
		from, selector = ptr.Deref(a.Namespaces.From, from), a.Namespaces.Selector
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		l.namespaces = labels.Everything()
	case gatewayv1.NamespacesFromNone:
		l.namespaces = labels.Nothing()
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || selector == nil {
			l.namespaces = labels.Nothing()
			l.accepted = problem{string(gatewayv1.ListenerReasonUnsupportedValue), fmt.Sprintf("allowedRoutes.namespaces.selector is not a label selector: %v", err)}
			return
		}
		l.namespaces = s
	}
}

// findConflicts marks listeners that cannot stand beside each other: none of them is programmed, as none is known to be meant.
func findConflicts(all []*listener) {
	byPort := map[gatewayv1.PortNumber][]*listener{}
	for _, l := range all {
		byPort[l.spec.Port] = append(byPort[l.spec.Port], l)
	}
	for port, same := range byPort {
		for _, a := range same {
			for _, b := range same {
				switch {
				case a == b:
				case a.spec.Protocol != b.spec.Protocol:
					a.conflict = problem{string(gatewayv1.ListenerReasonProtocolConflict),
						fmt.Sprintf("listener %s has port %d too, with protocol %s: use different ports", b.spec.Name, port, b.spec.Protocol)}
				case ptr.Deref(a.spec.Hostname, "") == ptr.Deref(b.spec.Hostname, "") && a.conflict.ok():
					a.conflict = problem{string(gatewayv1.ListenerReasonHostnameConflict),
						fmt.Sprintf("listener %s has port %d and the same hostname: use different hostnames", b.spec.Name, port)}
				}
			}
		}
	}
}
