package hub

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAcknowledgedEpochs(t *testing.T) {
	for text, want := range map[string]string{
		"":                "new",
		"old":             "new;supersedes=old",
		" old, older\nx ": "new;supersedes=old,older,x",
		"new":             "new", // nobody supersedes itself
	} {
		cm := corev1.ConfigMap{Data: map[string]string{epochKey: "new", supersedesKey: text}}
		if got := acknowledged(cm).String(); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
