package lab

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// clocks sets clocks apart and right again, and asks a pod and the API server what time it is.
func clocks(t *testing.T, l *Lab) {
	if runtime.GOARCH != "amd64" {
		t.Log("clocks are for amd64")
		return
	}
	const pod = "one/default/p-0/pod"
	set := func(target string, offset time.Duration, wants ...string) {
		t.Helper()
		_, acted, err := l.Clock(t.Context(), target, offset)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !slices.Contains(acted, want) {
				t.Errorf("%s of %s acted on %v, not on %s", offset, target, acted, want)
			}
		}
	}
	set("one", -2*time.Hour, pod, "one/apiserver", "one/etcd", "one/controller-manager")
	wantClocks(t, l, -2*time.Hour, -2*time.Hour)
	set("one/apiserver", time.Hour, "one/apiserver")
	wantClocks(t, l, -2*time.Hour, time.Hour)
	if _, _, err := l.Fault(t.Context(), "restart", pod); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 2)
	wantClocks(t, l, -2*time.Hour, time.Hour)
	acted, err := l.Heal(t.Context(), "", "") // without --faults: no link to mend
	if err != nil || !slices.Contains(acted, pod) || !slices.Contains(acted, "one/apiserver") {
		t.Errorf("healed %v, %v", acted, err)
	}
	wantClocks(t, l, 0, 0)
	for target, offset := range map[string]time.Duration{"two": time.Hour, "one/nothing": time.Hour, "one": time.Millisecond, "": 0} {
		if _, acted, err := l.Clock(t.Context(), target, offset); err == nil || len(acted) > 0 {
			t.Errorf("clock %s %s: acted on %v, error %v", target, offset, acted, err)
		}
	}
}

// wantClocks waits until a pod and the API server are so far ahead, to the half hour.
func wantClocks(t *testing.T, l *Lab, pod, apiserver time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("a pod that is %s ahead", pod), func() error {
		raw, err := in(t, l, "", "kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/p-0:8000/proxy/view")
		if err != nil {
			return err
		}
		var v podView
		if err := json.Unmarshal([]byte(raw), &v); err != nil {
			return err
		}
		if got := time.Until(v.Now).Round(30 * time.Minute); got != pod {
			return fmt.Errorf("it is %s ahead", got)
		}
		return nil
	})
	// What an API server makes carries its time.
	raw, err := in(t, l, "", "kubectl", "create", "namespace", "clock", "-o", "jsonpath={.metadata.creationTimestamp}", "--dry-run=server")
	if err != nil {
		t.Fatal(err)
	}
	made, err := time.Parse(time.RFC3339, raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Until(made).Round(30 * time.Minute); got != apiserver {
		t.Errorf("the API server is %s ahead, want %s", got, apiserver)
	}
}
