// Package v1alpha1 holds the API types of group isthmus.dev.
//
// Spoke is written by administrators on the hub. SpokeReport and AgentSlice are written by a spoke into its own
// namespace on the hub ("isthmus-spoke-<name>") and validated by the hub before it believes any of it. GatewayProgram and
// GatewayProgramSet lie there too: the hub writes their spec, that spoke their status.
//
// The room holds types, conditions and reasons only: no controller-runtime, no clients, no behaviour beyond lookups.
//
// +kubebuilder:object:generate=true
// +groupName=isthmus.dev
package v1alpha1
