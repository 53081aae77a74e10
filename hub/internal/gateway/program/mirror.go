package program

import (
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// A copy of a request has the headers of the original, the target header too: implementations copy it as it is after the rule's
// filters. So copies go to a listener of their own, which finds their target in a header of its own. One header is one copy.

const mirrorOfBackend = "a filter RequestMirror of a backendRef is not supported: give it to the rule"

// mirrors are the copies that a rule makes.
type mirrors struct {
	redirects bool // nothing is forwarded
	seen      bool
	target    *Target // of the one that is programmed
}

// mirror leads copies to the router; nil: none are to be made, because there is no such backend (the route says so) or the route is
// refused.
func (c *compiler) mirror(r *route, m *mirrors, in *gatewayv1.HTTPRequestMirrorFilter) *gatewayv1.HTTPRequestMirrorFilter {
	switch {
	case in == nil:
		r.refuse("a filter RequestMirror names no backend")
		return nil
	case m.redirects:
		r.refuse("a rule redirects and has a filter RequestMirror: what is redirected is not forwarded, and not copied")
		return nil
	case m.seen:
		r.refuse("a rule has several filters RequestMirror: one is supported")
		return nil
	}
	m.seen = true
	t, ok := c.resolve(r, in.BackendRef)
	if !ok {
		return nil
	}
	m.target = &t
	out := *in
	out.BackendRef = router(nil).BackendObjectReference
	out.BackendRef.Port = ptr.To(gatewayv1.PortNumber(v1alpha1.ProgramMirrorPort))
	return &out
}
