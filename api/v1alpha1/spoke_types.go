package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpokeState says whether new requests may be sent to a spoke.
// +kubebuilder:validation:Enum=Active;Draining
type SpokeState string

const (
	// SpokeActive: the spoke's places are used.
	SpokeActive SpokeState = "Active"
	// SpokeDraining: no new request is sent to the spoke; open streams finish.
	SpokeDraining SpokeState = "Draining"
)

// Location says where a spoke is. Region and zone decide the order of places; coordinates only order regions.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.latitude) == has(self.longitude)",message="set both latitude and longitude, or neither"
// +kubebuilder:validation:XValidation:rule="!has(self.zone) || has(self.region)",message="a zone needs its region"
type Location struct {
	// region is the failure domain that the cloud or operator calls a region, as in topology.kubernetes.io/region.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	Region string `json:"region,omitempty"`

	// zone is the failure domain within the region, as in topology.kubernetes.io/zone.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	Zone string `json:"zone,omitempty"`

	// latitude in decimal degrees, -90 to 90, as a decimal string ("50.11").
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^-?[0-9]{1,2}(\.[0-9]{1,10})?$`
	// +kubebuilder:validation:XValidation:rule="double(self) >= -90.0 && double(self) <= 90.0",message="latitude must be between -90 and 90 degrees"
	Latitude string `json:"latitude,omitempty"`

	// longitude in decimal degrees, -180 to 180, as a decimal string ("8.68").
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^-?[0-9]{1,3}(\.[0-9]{1,10})?$`
	// +kubebuilder:validation:XValidation:rule="double(self) >= -180.0 && double(self) <= 180.0",message="longitude must be between -180 and 180 degrees"
	Longitude string `json:"longitude,omitempty"`
}

// GatewaySpec configures how hub Gateways are programmed into a spoke's cluster.
// +kubebuilder:validation:MinProperties=1
type GatewaySpec struct {
	// className is the GatewayClass in the spoke's cluster that implements Gateways programmed from the hub.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClassName string `json:"className,omitempty"`
}

// NamespaceGlob matches namespace names; "*" stands for any run of characters.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$`
type NamespaceGlob string

// SpokeSpec is what an administrator says of a spoke.
type SpokeSpec struct {
	// location of the spoke; without it the spoke counts as far from every other.
	// +optional
	Location *Location `json:"location,omitempty,omitzero"`

	// namespaces that the spoke may export resources from. Required: ["*"] admits all, explicitly.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Namespaces []NamespaceGlob `json:"namespaces,omitempty"`

	// gateway configures the programming of hub Gateways into the spoke's cluster.
	// +optional
	Gateway *GatewaySpec `json:"gateway,omitempty,omitzero"`

	// state is Active (the default) or Draining.
	// +optional
	// +default="Active"
	State SpokeState `json:"state,omitempty"`
}

// Condition types of a Spoke, each with its reasons.
const (
	// SpokeJoined: the spoke has enrolled and holds an identity. Reasons: Enrolled (True); AwaitingEnrolment (False),
	// NamespaceConflict (False: the spoke's namespace exists and is not ours), TokenExpired (False: a new one is made).
	SpokeJoined = "Joined"
	// SpokeAvailable: the spoke renews its Lease. Reasons: LeaseRenewed (True); LeaseExpired (Unknown: its places are used
	// last), MassExpiry (Unknown: it does not, but so many fell silent together that nothing is concluded), NeverSeen
	// (Unknown); Unreachable (False: it does not, and a quorum of other spokes cannot reach its routers: its places are
	// removed until one of the two is over).
	SpokeAvailable = "Available"
	// SpokeConnected: the routers of other spokes reach this one's, and this one's reach theirs. It decides nothing while the
	// spoke is Available. Reasons: AllReachable (True); UnreachableBySome, UnreachableByQuorum (False: the message names those
	// that cannot reach it), ReachesFewPeers (False: it cannot reach more than half of the available spokes, so what it says of
	// them is not counted); NoWitness (Unknown: no available spoke can tell).
	SpokeConnected = "Connected"
	// SpokeDrains: the spoke is told to take no new requests. Reasons: Active (False); Draining (True: routers are being
	// told), Drained (True: every router that is connected to the hub has acknowledged it; open streams may go on).
	SpokeDrains = "Draining"
	// SpokeRouterReady: the spoke has reported at least one usable router address. Reasons: RouterReported (True);
	// NoRouter (False), AddressRefused (False: the message names each refused address and why).
	SpokeRouterReady = "RouterReady"
	// SpokeConflicted: some resource of the spoke disagrees with the same resource elsewhere, or some entry was
	// rejected. Reasons: NoConflict (False); PropertiesConflict, EntriesRejected (True).
	SpokeConflicted = "Conflicted"
	// SpokeStale: what routers have of the spoke may be more than it exports. Reasons: Complete (False); Incomplete (True: the hub
	// keeps what it knew because the spoke's report and slices do not agree), StoreRestored (True: the hub's store turned out
	// to be an earlier copy, and what it lacks is withdrawn nowhere until an administrator acknowledges that).
	SpokeStale = "Stale"
	// SpokeLimited: there is too much of something that the spoke exports. Reasons: WithinLimits (False); LimitExceeded
	// (True: the spoke declares more than the hub takes of one spoke; the excess does not count, what counted before stays),
	// ChangeRateExceeded (True: it changes faster; its changes are taken in later, those of no other spoke are),
	// LargeNamespace (True: a namespace of more than 2,000 resources, whose requests take longer), PlacesCut (True: the fleet
	// has more than 500 combinations of places, so not all places of some resources are used).
	SpokeLimited = "Limited"
	// SpokeTrustCurrent: the spoke, all its routers included, uses the trust bundle in force and a leaf of the CA in force.
	// Reasons: TrustInForce (True), CAUnusable (True: so it is, and what Secret isthmus-ca asks for instead cannot be used; the
	// message says why); BundleOutdated, LeafOutdated (False: the spoke is asked to renew; during a rotation of
	// the CA the next step waits for it), TrustNotReported (Unknown).
	SpokeTrustCurrent = "TrustCurrent"
)

// Reasons of Spoke conditions; each is explained at its condition type.
const (
	ReasonEnrolled           = "Enrolled"
	ReasonAwaitingEnrolment  = "AwaitingEnrolment"
	ReasonNamespaceConflict  = "NamespaceConflict"
	ReasonTokenExpired       = "TokenExpired"
	ReasonLeaseRenewed       = "LeaseRenewed"
	ReasonLeaseExpired       = "LeaseExpired"
	ReasonNeverSeen          = "NeverSeen"
	ReasonRouterReported     = "RouterReported"
	ReasonNoRouter           = "NoRouter"
	ReasonAddressRefused     = "AddressRefused"
	ReasonNoConflict         = "NoConflict"
	ReasonPropertiesConflict = "PropertiesConflict"
	ReasonEntriesRejected    = "EntriesRejected"
	ReasonComplete           = "Complete"
	ReasonIncomplete         = "Incomplete"
	ReasonStoreRestored      = "StoreRestored"
	ReasonWithinLimits       = "WithinLimits"
	ReasonLargeNamespace     = "LargeNamespace"
	ReasonPlacesCut          = "PlacesCut"
	ReasonTrustInForce       = "TrustInForce"
	ReasonCAUnusable         = "CAUnusable"
	ReasonBundleOutdated     = "BundleOutdated"
	ReasonLeafOutdated       = "LeafOutdated"
	ReasonTrustNotReported   = "TrustNotReported"
	ReasonLimitExceeded      = "LimitExceeded"
	ReasonChangeRateExceeded = "ChangeRateExceeded"
)

// Reasons of Available, Connected and Draining beyond those.
const (
	ReasonMassExpiry          = "MassExpiry"
	ReasonUnreachable         = "Unreachable"
	ReasonAllReachable        = "AllReachable"
	ReasonUnreachableBySome   = "UnreachableBySome"
	ReasonUnreachableByQuorum = "UnreachableByQuorum"
	ReasonReachesFewPeers     = "ReachesFewPeers"
	ReasonNoWitness           = "NoWitness"
	ReasonActive              = "Active"
	ReasonDraining            = "Draining"
	ReasonDrained             = "Drained"
)

// SpokeStatus is what the hub knows of a spoke. Only the hub writes it.
// +kubebuilder:validation:MinProperties=1
type SpokeStatus struct {
	// conditions are Joined, Available, Connected, Draining, RouterReady, Conflicted, Stale, Limited and TrustCurrent.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// namespace on the hub that holds the spoke's report, slices and join Secret.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// identity is the spoke's SPIFFE ID. It ends with the start of this object's UID, or, where the cluster had joined before a store of
	// the hub was lost, with that of the Spoke that it had then.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Identity string `json:"identity,omitempty"`

	// routers that the hub accepted from the report, in the order of the report.
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

	// exported counts the spoke's accepted resources.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Exported *int32 `json:"exported,omitempty"`
}

// Spoke registers a member cluster. Creating it is the admission; deleting it revokes the cluster's identity.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=isthmus
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.location.region`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.spec.state`
// +kubebuilder:printcolumn:name="Joined",type=string,JSONPath=`.status.conditions[?(@.type=="Joined")].status`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Exported",type=integer,JSONPath=`.status.exported`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40",message="the name must be a DNS label of at most 40 characters"
type Spoke struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object; the name is the spoke's name in the fleet.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the administrator says of the spoke.
	// +required
	Spec SpokeSpec `json:"spec,omitzero"`

	// status is what the hub knows of the spoke.
	// +optional
	Status SpokeStatus `json:"status,omitzero"`
}

// SpokeList is a list of Spokes.
// +kubebuilder:object:root=true
type SpokeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Spoke `json:"items"`
}
