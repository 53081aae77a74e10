package compile

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

const (
	// retryOnHeader is set by the edge for GET, HEAD and OPTIONS, so that they are also tried again after a reset.
	retryOnHeader = "x-envoy-retry-on"
	// podRetryOnHeader is set by the edge beside it, for the router where the pods are.
	podRetryOnHeader = "x-isthmus-retry-on"
	// shareAttempts is how often another place of a step is looked for: of weights 999 and 1 one pick in 1,000 is the other.
	shareAttempts = 1000
	// safeMethods may run twice. The expression is this constant only; nothing of a policy becomes one.
	safeMethods = "GET|HEAD|OPTIONS"
)

// share lets a retry try a second place of the same step before the next step.
func (r retries) share(p *routev3.RetryPolicy) {
	p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
		Name:       "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: r.sharedPriorities},
	}
	p.HostSelectionRetryMaxAttempts = shareAttempts
}

func newSharedPriorities() *previousprioritiesv3.PreviousPrioritiesConfig {
	return &previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2}
}

// limitRetries applies what a policy says of retries for all methods: only what reached nobody.
func limitRetries(p *routev3.RetryPolicy, r federate.Retries, several bool) {
	if p == nil {
		return
	}
	if r.Attempts != nil {
		p.NumRetries = wrapperspb.UInt32(uint32(*r.Attempts))
	}
	var on []string
	if r.Try(v1alpha1.RetryConnectFailure) {
		on = append(on, "connect-failure", "refused-stream")
	}
	if several {
		on = append(on, "retriable-headers")
	}
	if r.Attempts != nil && *r.Attempts == 0 {
		on = nil
	}
	p.RetryOn = strings.Join(on, ",")
}

// treat adds what a policy says for some methods only: one more route in front, for those that may run twice.
func (c *Compiler) treat(route *routev3.Route, t federate.Treatment) []*routev3.Route {
	none := t.Retries.Attempts != nil && *t.Retries.Attempts == 0
	if none || !t.Retries.Try(v1alpha1.RetryReset) {
		route.RequestHeadersToRemove = []string{retryOnHeader, podRetryOnHeader}
	}
	policy := route.GetRoute().GetRetryPolicy()
	if none || policy == nil || !t.Retries.Try(v1alpha1.RetryGatewayError) {
		return []*routev3.Route{route}
	}
	safe := proto.CloneOf(route)
	safe.Match.Headers = []*routev3.HeaderMatcher{{
		Name: ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: safeMethods}},
		}},
	}}
	on := slices.DeleteFunc(strings.Split(policy.GetRetryOn(), ","), func(s string) bool { return s == "" })
	safe.GetRoute().RetryPolicy.RetryOn = strings.Join(append(on, "gateway-error"), ",")
	return []*routev3.Route{safe, route}
}

func hashPolicy(r federate.Resource, a federate.Affinity) []*routev3.RouteAction_HashPolicy {
	switch a.Kind {
	case v1alpha1.AffinityCookie:
		return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{
			Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: a.Name, Path: r.Path(), Ttl: durationpb.New(0)}, // 0: for the session
		}}}
	case v1alpha1.AffinityHeader:
		return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: a.Name},
		}}}
	default:
		return nil
	}
}
