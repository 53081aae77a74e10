package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TargetKind says what a target of a policy is.
// +kubebuilder:validation:Enum=Resource;Selector;Namespace
type TargetKind string

const (
	// TargetResource is one resource, by type and name.
	TargetResource TargetKind = "Resource"
	// TargetSelector are the resources with certain labels.
	TargetSelector TargetKind = "Selector"
	// TargetNamespace are all resources of the namespace.
	TargetNamespace TargetKind = "Namespace"
)

// PolicyTarget is what a policy is about. A resource always belongs to the policy's own namespace.
// +kubebuilder:validation:XValidation:rule="(self.kind == 'Resource') == has(self.name)",message="name goes with kind Resource, and only with it"
// +kubebuilder:validation:XValidation:rule="self.kind != 'Resource' || has(self.type)",message="kind Resource needs a type"
// +kubebuilder:validation:XValidation:rule="self.kind != 'Namespace' || !has(self.type)",message="kind Namespace takes no type"
// +kubebuilder:validation:XValidation:rule="(self.kind == 'Selector') == has(self.matchLabels)",message="matchLabels goes with kind Selector, and only with it"
type PolicyTarget struct {
	// kind of the target: Resource, Selector or Namespace.
	// +required
	Kind TargetKind `json:"kind,omitempty"`

	// type of the resource; with kind Selector it may narrow the selection.
	// +optional
	Type ResourceType `json:"type,omitempty"`

	// name of the resource.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// matchLabels selects resources that are exported with all of these labels.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	MatchLabels []Label `json:"matchLabels,omitempty"`
}

// PlacementPreference says where requests go first.
// +kubebuilder:validation:Enum=Local;Nearest;Weighted
type PlacementPreference string

const (
	// PreferLocal: the caller's own cluster first, then the others in the failover order.
	PreferLocal PlacementPreference = "Local"
	// PreferNearest: the failover order alone; the caller's own cluster is one of its places.
	PreferNearest PlacementPreference = "Nearest"
	// PreferWeighted: the places with a weight share the requests, wherever the caller is; the others take over.
	PreferWeighted PlacementPreference = "Weighted"
)

// PlaceKind says what a place of a policy is.
// +kubebuilder:validation:Enum=Spoke;Region
type PlaceKind string

const (
	// PlaceSpoke is one spoke.
	PlaceSpoke PlaceKind = "Spoke"
	// PlaceRegion are all spokes whose location names the region.
	PlaceRegion PlaceKind = "Region"
)

// PlaceName names a spoke, or all spokes of a region.
type PlaceName struct {
	// kind is Spoke or Region.
	// +required
	Kind PlaceKind `json:"kind,omitempty"`

	// name of the Spoke, or of the region as Spokes name it in their location.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// PlaceWeight is the share of a spoke or of a region. The spokes of a region share its weight equally, without those that
// have one of their own.
type PlaceWeight struct {
	// kind is Spoke or Region.
	// +required
	Kind PlaceKind `json:"kind,omitempty"`

	// name of the Spoke, or of the region as Spokes name it in their location.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// weight in relation to the sum of all; 0 leaves the place to failover.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`
}

// FailoverOrder says in which steps places are tried. Places of one step share the requests equally.
// +kubebuilder:validation:Enum=Distance;Zone;Region
type FailoverOrder string

const (
	// OrderDistance: one place a step: the same zone, the same region, then by distance and name.
	OrderDistance FailoverOrder = "Distance"
	// OrderZone: one zone a step, nearest first.
	OrderZone FailoverOrder = "Zone"
	// OrderRegion: one region a step, nearest first.
	OrderRegion FailoverOrder = "Region"
)

// Failover says who takes over.
// +kubebuilder:validation:MinProperties=1
type Failover struct {
	// order of the places; Distance when not given.
	// +optional
	Order FailoverOrder `json:"order,omitempty"`

	// first are places that come before all others, each a step of its own.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	First []PlaceName `json:"first,omitempty"`
}

// Placement says where requests go.
// +kubebuilder:validation:XValidation:rule="(self.preference == 'Weighted') == has(self.weights)",message="weights go with preference Weighted, and only with it"
type Placement struct {
	// preference is Local, Nearest or Weighted.
	// +required
	Preference PlacementPreference `json:"preference,omitempty"`

	// weights of spokes and regions. A place without a weight takes over when no other is left.
	// +optional
	// +listType=map
	// +listMapKey=kind
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.exists(w, w.weight > 0)",message="at least one weight must be above 0"
	Weights []PlaceWeight `json:"weights,omitempty"`

	// failover says who takes over from what is preferred.
	// +optional
	Failover *Failover `json:"failover,omitempty,omitzero"`

	// minHealthyPercent is the share of a step's routers that must be healthy for the step to take all of its requests;
	// below it the rest overflows to the next step, in proportion. Envoy's overprovisioning factor is 100 divided by it.
	// Without it: 72 where each step is one place (Envoy's own factor, 1.4), and 1 where places share a step.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MinHealthyPercent *int32 `json:"minHealthyPercent,omitempty"`
}

// RetryCondition says what is tried again.
// +kubebuilder:validation:Enum=ConnectFailure;Reset;GatewayError
type RetryCondition string

const (
	// RetryConnectFailure: the request reached nobody. Any method.
	RetryConnectFailure RetryCondition = "ConnectFailure"
	// RetryReset: no response came, or its beginning took too long. GET, HEAD and OPTIONS only.
	RetryReset RetryCondition = "Reset"
	// RetryGatewayError: the response is 502, 503 or 504, or what Reset names, which Envoy answers with these. GET, HEAD and OPTIONS only.
	RetryGatewayError RetryCondition = "GatewayError"
)

// Retries says what is tried again. A request that may have run is never repeated unless its method is GET, HEAD or OPTIONS.
// +kubebuilder:validation:MinProperties=1
type Retries struct {
	// attempts after the first; 0 is none, also not at the next place. Without it: 3 where there is another place, else 1.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	Attempts *int32 `json:"attempts,omitempty"`

	// retryOn are the conditions; ConnectFailure and Reset when not given. That a place has no pod is always one.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	RetryOn []RetryCondition `json:"retryOn,omitempty"`
}

// Timeouts of a request.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.totalSeconds) || !has(self.firstByteSeconds) || self.totalSeconds >= self.firstByteSeconds",message="totalSeconds must not be below firstByteSeconds"
type Timeouts struct {
	// firstByteSeconds is the longest wait for the first byte of a response, in seconds, for each try. Without it that of
	// the resource.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	FirstByteSeconds *int32 `json:"firstByteSeconds,omitempty"`

	// totalSeconds is the longest time from request to the end of the response, in seconds, tries and streams included.
	// Without it there is no limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	TotalSeconds *int32 `json:"totalSeconds,omitempty"`
}

// AffinityKind says in what requests must agree.
// +kubebuilder:validation:Enum=Cookie;Header
type AffinityKind string

const (
	// AffinityCookie: the router sets the cookie, for the session and the resource's path, where a request has none.
	AffinityCookie AffinityKind = "Cookie"
	// AffinityHeader: requests without the header are spread.
	AffinityHeader AffinityKind = "Header"
)

// Affinity sends requests that agree in a cookie or a header to the same place, while it is healthy.
type Affinity struct {
	// kind is Cookie or Header.
	// +required
	Kind AffinityKind `json:"kind,omitempty"`

	// name of the cookie or header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+$`
	Name string `json:"name,omitempty"`
}

// CircuitBreaker bounds what one router lets pass to one resource; more is answered 503 at once. Each resource that the
// policy is in force for has limits of its own, so that none takes another's share.
// +kubebuilder:validation:MinProperties=1
type CircuitBreaker struct {
	// maxRequests that are under way.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	MaxRequests *int32 `json:"maxRequests,omitempty"`

	// maxPendingRequests that wait for a connection.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	MaxPendingRequests *int32 `json:"maxPendingRequests,omitempty"`
}

// TrafficPolicySpec says how requests for some resources of the namespace are sent.
// +kubebuilder:validation:XValidation:rule="has(self.placement) || has(self.retries) || has(self.timeouts) || has(self.affinity) || has(self.circuitBreaker)",message="set at least one of placement, retries, timeouts, affinity and circuitBreaker"
type TrafficPolicySpec struct {
	// targetRefs are what the policy is about. For one resource a policy that names it beats one that selects it, and that
	// beats one of the namespace; of equals the oldest counts, then the first by name. The whole of one policy counts.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	TargetRefs []PolicyTarget `json:"targetRefs,omitempty"`

	// placement says where requests go. Without it the caller's own cluster comes first, then the others by distance.
	// +optional
	Placement *Placement `json:"placement,omitempty,omitzero"`

	// retries says what is tried again.
	// +optional
	Retries *Retries `json:"retries,omitempty,omitzero"`

	// timeouts of a request.
	// +optional
	Timeouts *Timeouts `json:"timeouts,omitempty,omitzero"`

	// affinity keeps related requests at one place.
	// +optional
	Affinity *Affinity `json:"affinity,omitempty,omitzero"`

	// circuitBreaker bounds the requests to each resource.
	// +optional
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty,omitzero"`
}

// Condition types of a TrafficPolicy, each with its reasons.
const (
	// PolicyAccepted: the policy is in force for something. Reasons: Accepted (True); TargetNotFound (False: no resource is
	// one of its targets), Conflicted (False: other policies of the same rank decide for all that it targets), Overridden
	// (False: policies of a higher rank do), Invalid (False: the spec breaks a rule; the message names it).
	PolicyAccepted = "Accepted"
	// PolicyEnforced: the policy is in force as it stands for all that it targets. Reasons: Enforced (True);
	// PartlyEnforced (False: other policies decide for some of it), SetLimitReached (False: the fleet has too many
	// combinations of places and policies, so some of it is left out), NotAccepted (False).
	PolicyEnforced = "Enforced"
	// PolicyResolvedRefs: all spokes and regions that the policy names exist; the policy is used without the others.
	// Reasons: ResolvedRefs (True); UnknownPlace (False).
	PolicyResolvedRefs = "ResolvedRefs"
)

// Reasons of TrafficPolicy conditions; each is explained at its condition type.
const (
	ReasonAccepted        = "Accepted"
	ReasonTargetNotFound  = "TargetNotFound"
	ReasonConflicted      = "Conflicted"
	ReasonOverridden      = "Overridden"
	ReasonInvalid         = "Invalid"
	ReasonEnforced        = "Enforced"
	ReasonPartlyEnforced  = "PartlyEnforced"
	ReasonSetLimitReached = "SetLimitReached"
	ReasonNotAccepted     = "NotAccepted"
	ReasonResolvedRefs    = "ResolvedRefs"
	ReasonUnknownPlace    = "UnknownPlace"
)

// TrafficPolicyStatus is what became of a policy. Only the hub writes it.
// +kubebuilder:validation:MinProperties=1
type TrafficPolicyStatus struct {
	// conditions are Accepted, Enforced and ResolvedRefs.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// targets is how many resources the policy targets.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Targets *int32 `json:"targets,omitempty"`

	// inForce is for how many of them it decides.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InForce *int32 `json:"inForce,omitempty"`
}

// TrafficPolicy says how requests for resources of its namespace are sent, in every cluster. Without one the caller's own
// cluster comes first, then the others by distance.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=isthmus
// +kubebuilder:printcolumn:name="Preference",type=string,JSONPath=`.spec.placement.preference`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="In force",type=integer,JSONPath=`.status.inForce`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object; its namespace is that of the resources.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says how requests are sent.
	// +required
	Spec TrafficPolicySpec `json:"spec,omitzero"`

	// status is what became of the policy.
	// +optional
	Status TrafficPolicyStatus `json:"status,omitzero"`
}

// TrafficPolicyList is a list of TrafficPolicies.
// +kubebuilder:object:root=true
type TrafficPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficPolicy `json:"items"`
}
