package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ProgramDigest lets the applier tell a complete set of programs from a partial one.
type ProgramDigest struct {
	// count of GatewayPrograms that the hub has written for the spoke.
	// +required
	// +kubebuilder:validation:Minimum=0
	Count *int32 `json:"count,omitempty"`

	// hash over the names of those programs: 16 hexadecimal digits, as computed by internal/digest. What a program says
	// does not count, so a change of one writes that one only.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	// +kubebuilder:validation:MinLength=16
	// +kubebuilder:validation:MaxLength=16
	Hash string `json:"hash,omitempty"`
}

// GatewayProgramSetSpec says which programs there are, and what holds for all of them.
type GatewayProgramSetSpec struct {
	// epoch of the hub that wrote the set (ConfigMap isthmus-epoch).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Epoch string `json:"epoch,omitempty"`

	// programs that there are. When those that the applier sees agree with it, the set is complete, and what the applier
	// made and no program names any more is removed. Else nothing is removed.
	// +required
	Programs ProgramDigest `json:"programs,omitzero"`

	// className is spec.gateway.className of the Spoke: the cluster's GatewayClass. Without it the applier's own setting
	// counts, then the only accepted GatewayClass of the cluster.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClassName string `json:"className,omitempty"`
}

// Condition types of a GatewayProgramSet, each with its reasons.
const (
	// ProgramSetReady: the cluster can be programmed. Reasons: Ready (True: the message names the GatewayClass);
	// GatewayAPIMissing, NoGatewayClass, SeveralGatewayClasses (False: the message lists them).
	ProgramSetReady = "Ready"
	// ProgramSetStale: the applier keeps what the hub no longer names. Reasons: Complete (False: what the set of the observed
	// generation does not name is removed); Incomplete (True: the
	// programs and this set do not agree), EpochChanged (True: the hub's epoch is not acknowledged), Behind (True: the set is
	// an earlier state of itself than the applier has seen).
	ProgramSetStale = "Stale"
)

// GatewayProgramSetStatus is what the applier says of the whole. Only the spoke's applier writes it.
// +kubebuilder:validation:MinProperties=1
type GatewayProgramSetStatus struct {
	// conditions are Ready and Stale.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// acknowledgedEpoch is the epoch within which the applier removes.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	AcknowledgedEpoch string `json:"acknowledgedEpoch,omitempty"`
}

// GatewayProgramSet says which GatewayPrograms a spoke has, in its namespace on the hub; one object, named "programs".
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=isthmus
// +kubebuilder:printcolumn:name="Programs",type=integer,JSONPath=`.spec.programs.count`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Stale",type=string,JSONPath=`.status.conditions[?(@.type=="Stale")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'programs'",message="a spoke has one set of programs, named programs"
type GatewayProgramSet struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which programs there are.
	// +required
	Spec GatewayProgramSetSpec `json:"spec,omitzero"`

	// status is what the applier says of the whole.
	// +optional
	Status GatewayProgramSetStatus `json:"status,omitzero"`
}

// GatewayProgramSetList is a list of GatewayProgramSets.
// +kubebuilder:object:root=true
type GatewayProgramSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayProgramSet `json:"items"`
}
