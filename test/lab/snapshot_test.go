package lab

import (
	"fmt"
	"strings"
	"testing"
)

// snapshots: what was made after the copy is gone, what was there is back, and the cluster works on.
func snapshots(t *testing.T, l *Lab) {
	mustRun(t, l, "", "kubectl", "create", "configmap", "before")
	if _, err := l.Snapshot(t.Context(), "save", "one"); err != nil {
		t.Fatal(err)
	}
	mustRun(t, l, "", "kubectl", "delete", "configmap", "before")
	mustRun(t, l, "", "kubectl", "create", "configmap", "after")
	if acted, err := l.Snapshot(t.Context(), "restore", "one"); err != nil || fmt.Sprint(acted) != "[one/etcd]" {
		t.Fatalf("acted on %v, %v", acted, err)
	}
	out, err := in(t, l, "", "kubectl", "get", "configmap", "-o", "name")
	if err != nil || !strings.Contains(out, "configmap/before") || strings.Contains(out, "configmap/after") {
		t.Errorf("after the restoration: %s, %v", out, err)
	}
	for kind, name := range map[string]string{"restore": "two", "save": "../x", "burn": "one"} {
		if _, err := l.Snapshot(t.Context(), kind, name); err == nil {
			t.Errorf("snapshot %s %s is done", kind, name)
		}
	}
	mustRun(t, l, "", "kubectl", "create", "namespace", "isthmus-spoke-one")
	mustRun(t, l, "", "kubectl", "create", "configmap", "of-a-spoke", "--namespace", "isthmus-spoke-one")
	if _, err := l.Snapshot(t.Context(), "empty", ""); err != nil {
		t.Fatal(err)
	}
	out, err = in(t, l, "", "kubectl", "get", "namespaces,configmaps", "--all-namespaces", "-o", "name")
	if err != nil || !strings.Contains(out, "configmap/before") || strings.Contains(out, "isthmus-spoke-one") || strings.Contains(out, "of-a-spoke") {
		t.Errorf("when the store is emptied of Isthmus: %s, %v", out, err)
	}
	wantReady(t, l, "default", "p", 2)
}
