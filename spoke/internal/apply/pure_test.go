package apply

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func TestChoose(t *testing.T) {
	impl := class{controller: "example.com/impl", accepted: true}
	waiting := class{controller: "example.com/other"}
	own := class{controller: hubController, accepted: true}
	for name, tc := range map[string]struct {
		asked        string
		classes      map[string]class
		served       reading
		want, reason string
		says         string
	}{
		"the only accepted one":    {"", map[string]class{"a": impl, "b": waiting, "isthmus": own}, known, "a", "", `"a"`},
		"asked for":                {"b", map[string]class{"a": impl, "b": waiting}, known, "b", "", "the Spoke"},
		"asked for, not there":     {"c", map[string]class{"a": impl}, known, "", v1alpha1.ReasonNoGatewayClass, `"c"`},
		"asked for, the hub's own": {"isthmus", map[string]class{"isthmus": own}, known, "", v1alpha1.ReasonNoGatewayClass, "hub's own"},
		"several":                  {"", map[string]class{"b": impl, "a": impl}, known, "", v1alpha1.ReasonSeveralGatewayClasses, "a, b"},
		"none accepted":            {"", map[string]class{"b": waiting}, known, "", v1alpha1.ReasonNoGatewayClass, "b"},
		"none":                     {"", nil, known, "", v1alpha1.ReasonNoGatewayClass, "install"},
		"no API":                   {"a", nil, missing, "", v1alpha1.ReasonGatewayAPIMissing, "gatewayclasses.gateway.networking.k8s.io"},
		"not read":                 {"a", nil, unread, "", v1alpha1.ReasonNoGatewayClass, "not read"},
	} {
		t.Run(name, func(t *testing.T) {
			got := choose(tc.asked, "the Spoke", tc.classes, tc.served)
			if got.name != tc.want || got.reason != tc.reason || !strings.Contains(got.message, tc.says) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestHostileManifests has a hub that was taken over try to write elsewhere, or something else.
func TestHostileManifests(t *testing.T) {
	program := func(manifest string) *v1alpha1.GatewayProgram {
		return &v1alpha1.GatewayProgram{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.GatewayProgramSpec{
			Source:  v1alpha1.ProgramSource{Kind: "Gateway", Namespace: "ns", Name: "n"},
			Objects: []v1alpha1.ProgramObject{{Manifest: runtime.RawExtension{Raw: []byte(manifest)}}},
		}}
	}
	for _, bad := range []string{
		``, `[]`, `{}`, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"spec":{}}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"x"},"spec":{}}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"ReferenceGrant","metadata":{"name":"x"},"spec":{}}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1beta1","kind":"Gateway","metadata":{"name":"x"},"spec":{}}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"../x"},"spec":{}}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":""},"spec":{}}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"x"},"spec":"y"}`,
		`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"x"}}`,
	} {
		if got, err := read(program(bad), "here"); err == nil {
			t.Errorf("%s is read as %v", bad, got)
		}
	}
	got, err := read(program(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"x","namespace":"kube-system","uid":"u",
		"finalizers":["stuck"],"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}],"labels":{"isthmus.dev/program":"other","kept":"yes"}},
		"spec":{"listeners":[]},"status":{"forged":true}}`), "here")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got[0].body.Object)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"annotations":{"isthmus.dev/source":"Gateway/ns/n"},` +
		`"labels":{"app.kubernetes.io/managed-by":"isthmus","isthmus.dev/program":"p","kept":"yes"},"name":"x","namespace":"here"},"spec":{"listeners":[]}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

// TestDriftIsForgotten looks at the pauses between corrections, and at their end.
func TestDriftIsForgotten(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	a := New(Options{Clock: clock, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	defer a.queue.ShutDown()
	k := key{gateways, "gw"}
	for i := range 3 {
		if v := a.drift(k, nil); v.reason != "" || a.wait(k) != 0 {
			t.Fatalf("after %d corrections: %+v, wait %s", i, v, a.wait(k))
		}
		a.corrected(k, &live{by: "somebody"})
	}
	if v := a.drift(k, &live{by: "somebody"}); v.reason != v1alpha1.ReasonDrifted || !strings.Contains(v.message, `"somebody"`) || a.wait(k) != time.Second {
		t.Errorf("%+v, wait %s", v, a.wait(k))
	}
	for range 20 {
		clock.Step(a.wait(k))
		a.corrected(k, nil)
	}
	if w := a.wait(k); w != time.Minute {
		t.Errorf("wait %s", w)
	}
	v := a.drift(k, nil)
	if clock.Step(v.again); a.drift(k, nil).reason != "" {
		t.Errorf("still said after %s", v.again)
	}
	clock.Step(driftMemory)
	if v := a.drift(k, nil); v.reason != "" || len(a.drifts) != 0 {
		t.Error("not forgotten")
	}
}
