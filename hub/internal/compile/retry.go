package compile

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// defaultTimeout is the longest wait for the first byte of agents, model APIs and services, as KAOS has it.
const defaultTimeout = 120 * time.Second

// retries makes retry policies. per_try_timeout is the time to the first byte: Envoy ignores it once anything was sent on.
type retries struct {
	hosts, priorities, sharedPriorities *anypb.Any
}

func newRetries() (retries, error) {
	hosts, err := pack(&previoushostsv3.PreviousHostsPredicate{})
	if err != nil {
		return retries{}, err
	}
	priorities, err := pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1})
	if err != nil {
		return retries{}, err
	}
	shared, err := pack(newSharedPriorities())
	return retries{hosts: hosts, priorities: priorities, sharedPriorities: shared}, err
}

// single tries a single place once more, and only for a request that reached nobody: a miss there is an answer.
func (r retries) single(perTry time.Duration) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:                       "connect-failure,refused-stream",
		NumRetries:                    wrapperspb.UInt32(1),
		PerTryTimeout:                 durationpb.New(perTry),
		RetryBackOff:                  backOff(),
		RetryHostPredicate:            r.otherHost(),
		HostSelectionRetryMaxAttempts: 3,
	}
}

// multi moves on to the next place, also for a miss.
func (r retries) multi(perTry time.Duration) *routev3.RetryPolicy {
	p := r.single(perTry)
	p.RetryOn = "connect-failure,refused-stream,retriable-headers"
	p.NumRetries = wrapperspb.UInt32(3)
	p.RetriableHeaders = []*routev3.HeaderMatcher{{Name: MissHeader, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}}
	p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
		Name:       "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: r.priorities},
	}
	return p
}

func (r retries) otherHost() []*routev3.RetryPolicy_RetryHostPredicate {
	return []*routev3.RetryPolicy_RetryHostPredicate{{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: r.hosts},
	}}
}

func backOff() *routev3.RetryPolicy_RetryBackOff {
	return &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(time.Millisecond), MaxInterval: durationpb.New(250 * time.Millisecond)}
}
