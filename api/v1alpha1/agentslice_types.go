package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxSliceResources is how many resources one AgentSlice holds at most, as EndpointSlice holds 100 endpoints.
const MaxSliceResources = 100

// ResourceType is the second segment of a resource's path.
// +kubebuilder:validation:Enum=agent;mcp;modelapi;service
type ResourceType string

const (
	// TypeAgent is an agent.
	TypeAgent ResourceType = "agent"
	// TypeMCP is an MCP server.
	TypeMCP ResourceType = "mcp"
	// TypeModelAPI is a model API.
	TypeModelAPI ResourceType = "modelapi"
	// TypeService is any exported Service.
	TypeService ResourceType = "service"
)

// Protocol is a protocol that a resource speaks.
// +kubebuilder:validation:Enum=HTTP;GRPC;A2A;MCP;OpenAI
type Protocol string

const (
	ProtocolHTTP   Protocol = "HTTP"
	ProtocolGRPC   Protocol = "GRPC"
	ProtocolA2A    Protocol = "A2A"
	ProtocolMCP    Protocol = "MCP"
	ProtocolOpenAI Protocol = "OpenAI"
)

// Readiness says whether a resource has a ready endpoint in its cluster.
// +kubebuilder:validation:Enum=Ready;NotReady
type Readiness string

const (
	// Ready: at least one endpoint of the backing Service is ready, or was within the last 10 s.
	Ready Readiness = "Ready"
	// NotReady: no endpoint has been ready for 10 s.
	NotReady Readiness = "NotReady"
)

// Label is a label of a resource that policies may select by.
type Label struct {
	// key of the label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Key string `json:"key,omitempty"`

	// value of the label; may be empty.
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=63
	Value *string `json:"value,omitempty"`
}

// SliceResource is one exported resource.
type SliceResource struct {
	// type of the resource.
	// +required
	Type ResourceType `json:"type,omitempty"`

	// name of the resource; a DNS label, checked by the hub entry by entry so that one bad name rejects one entry.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// protocols that the resource speaks.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Protocols []Protocol `json:"protocols,omitempty"`

	// readiness of the resource in the spoke's cluster.
	// +required
	Readiness Readiness `json:"readiness,omitempty"`

	// requestTimeoutSeconds is the longest wait for the first byte of a response, in seconds. Without it the default
	// of the type is used: 120 for agents and model APIs, 30 for MCP servers, as KAOS has them.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	RequestTimeoutSeconds *int32 `json:"requestTimeoutSeconds,omitempty"`

	// labels chosen for policy.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Labels []Label `json:"labels,omitempty"`
}

// AgentSliceSpec holds resources of one source namespace.
type AgentSliceSpec struct {
	// spoke is the name of the spoke that writes the slice; a slice in another spoke's namespace is rejected.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Spoke string `json:"spoke,omitempty"`

	// sourceNamespace is the namespace of the resources in the spoke's cluster.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	SourceNamespace string `json:"sourceNamespace,omitempty"`

	// resources of that namespace. Atomic: one type and name twice is not refused by the API server but rejected,
	// with a reason in the status, by the hub.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Resources []SliceResource `json:"resources,omitempty"`
}

// SliceReason says why an entry of a slice is not used as it stands.
// +kubebuilder:validation:Enum=NamespaceNotAllowed;InvalidName;DuplicateEntry;WrongSpoke;PropertiesConflict;LimitExceeded;Invalid
type SliceReason string

const (
	// SliceNamespaceNotAllowed: the Spoke's spec.namespaces do not admit the namespace. The entry is rejected.
	SliceNamespaceNotAllowed SliceReason = "NamespaceNotAllowed"
	// SliceInvalidName: the name is not a DNS label. The entry is rejected.
	SliceInvalidName SliceReason = "InvalidName"
	// SliceDuplicateEntry: the slice names the resource twice. The first entry is used, the others are rejected.
	SliceDuplicateEntry SliceReason = "DuplicateEntry"
	// SliceWrongSpoke: spec.spoke is not the spoke that owns the namespace. The whole slice is rejected.
	SliceWrongSpoke SliceReason = "WrongSpoke"
	// SlicePropertiesConflict: the entry is used as a place, but another spoke's properties decide.
	SlicePropertiesConflict SliceReason = "PropertiesConflict"
	// SliceLimitExceeded: the spoke has more resources, slices or text than the hub takes of one spoke; the message names
	// the limit. What counted before stays; the entry does not count, or counts as it was before it grew.
	SliceLimitExceeded SliceReason = "LimitExceeded"
	// SliceInvalid: another rule is broken; the message names it. The entry is rejected.
	SliceInvalid SliceReason = "Invalid"
)

// SliceEntryStatus is a rejected or conflicting entry.
type SliceEntryStatus struct {
	// type of the resource.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Type string `json:"type,omitempty"`

	// name of the resource.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// reason in one word.
	// +required
	Reason SliceReason `json:"reason,omitempty"`

	// message says what to do.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// AgentSliceStatus names the entries that are not used as they stand. Only the hub writes it.
// +kubebuilder:validation:MinProperties=1
type AgentSliceStatus struct {
	// observedGeneration is the generation that the entries refer to.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// entries that were rejected or conflict; all others are used.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Entries []SliceEntryStatus `json:"entries,omitempty"`
}

// AgentSlice holds up to 100 exported resources of one namespace of one spoke.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=isthmus
// +kubebuilder:printcolumn:name="Spoke",type=string,JSONPath=`.spec.spoke`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.sourceNamespace`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AgentSlice struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec holds the resources.
	// +required
	Spec AgentSliceSpec `json:"spec,omitzero"`

	// status names the entries that are not used as they stand.
	// +optional
	Status AgentSliceStatus `json:"status,omitzero"`
}

// AgentSliceList is a list of AgentSlices.
// +kubebuilder:object:root=true
type AgentSliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AgentSlice `json:"items"`
}
