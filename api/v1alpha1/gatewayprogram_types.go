package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Names that hub and applier agree on.
const (
	// ProgramSetName is the name of a spoke's one GatewayProgramSet.
	ProgramSetName = "programs"
	// ProgramBackend and ProgramBackendPort are the backend that programmed routes name: the `gateway` listener of the
	// cluster's own router, as a Service in the namespace into which the programs are applied.
	ProgramBackend     = "isthmus-router"
	ProgramBackendPort = 8081
	// ProgramMirrorPort is the port of that Service to which programmed routes send copies of requests: the router's `mirror`
	// listener.
	ProgramMirrorPort = 8082
	// ProgramNoBackend is a Service that never exists: a rule that names it gets the 500 that the Gateway API asks for.
	ProgramNoBackend = "isthmus-no-backend"
)

// ProgramBundles are the Secrets in a spoke's namespace on the hub that hold its certificates. Their names are fixed, so
// that RBAC can name them for hub and spoke; several, because a Secret holds 1 MiB.
func ProgramBundles() []string {
	return []string{"gateway-tls-0", "gateway-tls-1", "gateway-tls-2", "gateway-tls-3"}
}

// SourceKind is the kind of a hub object that is programmed into clusters.
// +kubebuilder:validation:Enum=Gateway;HTTPRoute;GRPCRoute
type SourceKind string

const (
	// SourceGateway is a Gateway of class isthmus.
	SourceGateway SourceKind = "Gateway"
	// SourceHTTPRoute is an HTTPRoute attached to one.
	SourceHTTPRoute SourceKind = "HTTPRoute"
	// SourceGRPCRoute is a GRPCRoute attached to one.
	SourceGRPCRoute SourceKind = "GRPCRoute"
)

// ProgramSource names the user's object on the hub that a program comes from.
type ProgramSource struct {
	// kind of the object.
	// +required
	Kind SourceKind `json:"kind,omitempty"`

	// namespace of the object on the hub.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid of the object: one that was deleted and made again is another.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// generation of the object that the program was made from.
	// +required
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`
}

// ProgramObject is one object that is to exist in the cluster.
type ProgramObject struct {
	// manifest of the object: apiVersion, kind, metadata (name, labels, annotations) and spec. It has no namespace: the
	// applier puts it into its own. A Gateway's gatewayClassName is a placeholder: the applier puts the cluster's there.
	// +required
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:EmbeddedResource
	// +kubebuilder:validation:XValidation:rule="self.kind in ['Gateway', 'HTTPRoute', 'GRPCRoute'] && self.apiVersion.startsWith('gateway.networking.k8s.io/')",message="only Gateways, HTTPRoutes and GRPCRoutes are programmed"
	// +kubebuilder:validation:XValidation:rule="has(self.metadata.name) && size(self.metadata.name) <= 63",message="the name must be set, with at most 63 characters"
	Manifest runtime.RawExtension `json:"manifest,omitempty,omitzero"`
}

// ProgramCertificate is a certificate that the objects of a program name as a Secret.
type ProgramCertificate struct {
	// name of the Secret of type kubernetes.io/tls that is to exist beside the objects.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// bundle is the Secret in the program's own namespace on the hub that holds it, under the keys "<name>.crt" (chain)
	// and "<name>.key" (PEM). The spoke may read exactly these Secrets.
	// +required
	// +kubebuilder:validation:Enum=gateway-tls-0;gateway-tls-1;gateway-tls-2;gateway-tls-3
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Bundle string `json:"bundle,omitempty"`

	// hash of the chain: the first 16 hexadecimal digits of its SHA-256. A bundle that holds another is not current yet:
	// what is in force stays.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	// +kubebuilder:validation:MinLength=16
	// +kubebuilder:validation:MaxLength=16
	Hash string `json:"hash,omitempty"`
}

// GatewayProgramSpec is one hub Gateway or route as the spoke is to apply it.
type GatewayProgramSpec struct {
	// epoch of the hub that wrote the program (ConfigMap isthmus-epoch). An applier that has not acknowledged that epoch
	// adds and changes, and removes nothing.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Epoch string `json:"epoch,omitempty"`

	// source is the user's object on the hub.
	// +required
	Source ProgramSource `json:"source,omitzero"`

	// objects that are to exist; those of the program that are no longer named are removed. The first is the source's
	// own counterpart, whose status the applier copies back.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Objects []ProgramObject `json:"objects,omitempty"`

	// certificates that the objects name.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Certificates []ProgramCertificate `json:"certificates,omitempty"`
}

// Condition types of a GatewayProgram, each with its reasons. Beside them the applier copies the conditions of the
// Gateway that it made (Accepted, Programmed, with the implementation's reasons).
const (
	// ProgramApplied: the objects of the program are in the cluster as the hub wants them. Reasons: Applied (True);
	// GatewayAPIMissing, GatewayAPIOutdated (a definition lacks a field that the program has), NoGatewayClass,
	// SeveralGatewayClasses, NotOurs (an object of that name exists and is another's), Rejected (the API server refused an
	// object), CertificatePending (the bundle does not hold the certificate yet), Drifted (another manager keeps changing an
	// object) (False). The message says what to do.
	ProgramApplied = "Applied"
)

// Reasons of GatewayProgram and GatewayProgramSet conditions; each is explained at its condition type.
const (
	ReasonApplied               = "Applied"
	ReasonGatewayAPIMissing     = "GatewayAPIMissing"
	ReasonGatewayAPIOutdated    = "GatewayAPIOutdated"
	ReasonNoGatewayClass        = "NoGatewayClass"
	ReasonSeveralGatewayClasses = "SeveralGatewayClasses"
	ReasonNotOurs               = "NotOurs"
	ReasonRejected              = "Rejected"
	ReasonCertificatePending    = "CertificatePending"
	ReasonDrifted               = "Drifted"
	ReasonReady                 = "Ready"
	ReasonEpochChanged          = "EpochChanged"
	ReasonBehind                = "Behind"
)

// ProgramAddress is an address of a programmed Gateway.
type ProgramAddress struct {
	// type as in the Gateway API: IPAddress, Hostname or an implementation's own.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Type string `json:"type,omitempty"`

	// value of the address.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Value string `json:"value,omitempty"`
}

// ProgramListenerStatus is what the cluster's implementation says of one listener.
type ProgramListenerStatus struct {
	// conditions of the listener, as the implementation wrote them.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// name of the listener.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// ProgramParentStatus is what the cluster's implementation says of a route at one Gateway.
type ProgramParentStatus struct {
	// conditions of the route at that parent, as the implementation wrote them. Accepted is False, UnsupportedValue, where its class does
	// not claim a feature that the route needs.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// name of the programmed Gateway.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// sectionName is the listener; empty: the whole Gateway.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SectionName string `json:"sectionName,omitempty"`
}

// GatewayProgramStatus is what became of the program in the cluster. Only the spoke's applier writes it.
// +kubebuilder:validation:MinProperties=1
type GatewayProgramStatus struct {
	// conditions are Applied and those copied from the Gateway.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// appliedGeneration is the program's generation that is in force in the cluster.
	// +optional
	// +kubebuilder:validation:Minimum=1
	AppliedGeneration int64 `json:"appliedGeneration,omitempty"`

	// addresses of the Gateway in the cluster.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Addresses []ProgramAddress `json:"addresses,omitempty"`

	// listeners of the Gateway.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Listeners []ProgramListenerStatus `json:"listeners,omitempty"`

	// parents of the route.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Parents []ProgramParentStatus `json:"parents,omitempty"`
}

// GatewayProgram is one Gateway or route of the hub as one spoke is to apply it, in that spoke's namespace on the hub.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=isthmus
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.source.kind`
// +kubebuilder:printcolumn:name="Source namespace",type=string,JSONPath=`.spec.source.namespace`
// +kubebuilder:printcolumn:name="Source",type=string,JSONPath=`.spec.source.name`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GatewayProgram struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the spoke is to apply.
	// +required
	Spec GatewayProgramSpec `json:"spec,omitzero"`

	// status is what became of it.
	// +optional
	Status GatewayProgramStatus `json:"status,omitzero"`
}

// GatewayProgramList is a list of GatewayPrograms.
// +kubebuilder:object:root=true
type GatewayProgramList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayProgram `json:"items"`
}
