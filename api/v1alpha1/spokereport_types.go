package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ReportName is the name of a spoke's one SpokeReport.
const ReportName = "spoke"

// RouterAddress is where other clusters' routers reach a spoke's router.
type RouterAddress struct {
	// host is an IP address or a DNS name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`

	// port of the router's mTLS listener.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// SliceDigest lets the hub tell a complete set of slices from a partial one.
type SliceDigest struct {
	// count of AgentSlices that the spoke has written.
	// +required
	// +kubebuilder:validation:Minimum=0
	Count *int32 `json:"count,omitempty"`

	// hash over the contents of those slices: 16 hexadecimal digits, as computed by internal/digest.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	// +kubebuilder:validation:MinLength=16
	// +kubebuilder:validation:MaxLength=16
	Hash string `json:"hash,omitempty"`
}

// ProbingState says whether a spoke's routers probe those of other spokes.
// +kubebuilder:validation:Enum=Active;Inactive
type ProbingState string

const (
	// ProbingActive: they do, and who is not named as unreachable is reached.
	ProbingActive ProbingState = "Active"
	// ProbingInactive: they do not, or none of them has answered for a while; nothing is known of other spokes.
	ProbingInactive ProbingState = "Inactive"
)

// TrustReport says which credentials a spoke uses: its controller, and all of its routers.
type TrustReport struct {
	// bundle is a digest of the trust bundle, in hexadecimal digits, as computed by internal/identity. While the routers
	// differ, it is that of one that is behind.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]+$`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Bundle string `json:"bundle,omitempty"`

	// authority is the key identifier of the CA that signed the leaf, in hexadecimal digits.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]+$`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Authority string `json:"authority,omitempty"`
}

// SpokeReportSpec is what a spoke says of itself.
type SpokeReportSpec struct {
	// spoke is the spoke's name; a report in another spoke's namespace is refused.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Spoke string `json:"spoke,omitempty"`

	// session is new each time that the spoke's controller starts or loses the leadership.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Session string `json:"session,omitempty"`

	// slices that the spoke has written in this session.
	// +required
	Slices SliceDigest `json:"slices,omitzero"`

	// routers under which other clusters reach this spoke.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Routers []RouterAddress `json:"routers,omitempty"`

	// version of the spoke's software.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version,omitempty"`

	// probing is Active while this spoke's routers probe those of other spokes. Without it unreachable says nothing: the spoke
	// is no witness.
	// +optional
	Probing ProbingState `json:"probing,omitempty"`

	// trust is what the rotation of the fleet's CA waits for. Absent: not known yet, as of a spoke of an older version.
	// +optional
	Trust TrustReport `json:"trust,omitempty,omitzero"`

	// unreachable names the spokes whose routers this spoke's routers cannot reach. Exceptions only. The spoke's own name,
	// unknown names, and those of a spoke that names more than half of the available ones, count for nothing.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=40
	Unreachable []string `json:"unreachable,omitempty"`
}

// SpokeReport is what a spoke says of itself, in its own namespace on the hub; one object, named "spoke".
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=isthmus
// +kubebuilder:printcolumn:name="Spoke",type=string,JSONPath=`.spec.spoke`
// +kubebuilder:printcolumn:name="Slices",type=integer,JSONPath=`.spec.slices.count`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'spoke'",message="a spoke has one report, named spoke"
type SpokeReport struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the spoke says.
	// +required
	Spec SpokeReportSpec `json:"spec,omitzero"`
}

// SpokeReportList is a list of SpokeReports.
// +kubebuilder:object:root=true
type SpokeReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SpokeReport `json:"items"`
}
