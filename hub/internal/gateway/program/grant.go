package program

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// grants are ReferenceGrants by their own namespace: that of what may be referred to.
type grants map[string][]*gatewayv1beta1.ReferenceGrant

func grantsOf(all []*gatewayv1beta1.ReferenceGrant) grants {
	out := grants{}
	for _, g := range all {
		out[g.Namespace] = append(out[g.Namespace], g)
	}
	return out
}

// allow says whether objects of a Gateway API kind in one namespace may refer to an object in another.
func (g grants) allow(fromKind, fromNamespace, group, kind, namespace, name string) bool {
	for _, grant := range g[namespace] {
		var from, to bool
		for _, f := range grant.Spec.From {
			from = from || string(f.Group) == gatewayv1.GroupName && string(f.Kind) == fromKind && string(f.Namespace) == fromNamespace
		}
		for _, t := range grant.Spec.To {
			to = to || string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		}
		if from && to {
			return true
		}
	}
	return false
}
