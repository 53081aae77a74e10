// Package cel tests the validation of api/v1alpha1 on a real kube-apiserver: every rule that the generated CRDs hold
// accepts a value at its edge and rejects one behind it, with the message that a user gets.
//
// TestEveryRuleHasACase reads the CRDs and fails for a rule without a case, so a new marker needs a new case. The rules
// of metav1.Condition are not ours and left out.
//
// The API server and etcd come from KUBEBUILDER_ASSETS or bin/tools (`make tools`). The room uses the CRDs and the API
// only: nothing under hub/ or spoke/.
package cel
