package cel

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// table is what `kubectl get` asks for: columns of priority 0 and the cells of the one row, but for the age.
func table(t *testing.T, path string) (columns []string, cells []string) {
	t.Helper()
	cfg := rest.CopyConfig(api.config)
	gv := v1alpha1.GroupVersion
	cfg.GroupVersion, cfg.APIPath, cfg.NegotiatedSerializer = &gv, "/apis", scheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Get().AbsPath("/apis/isthmus.dev/v1alpha1/"+path).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out metav1.Table
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Rows) != 1 {
		t.Fatalf("%d rows: %s", len(out.Rows), raw)
	}
	for i, c := range out.ColumnDefinitions {
		if c.Priority > 0 {
			continue
		}
		columns = append(columns, c.Name)
		if c.Name != "Age" {
			cells = append(cells, fmt.Sprint(out.Rows[0].Cells[i]))
		}
	}
	return columns, cells
}

func TestPrinterColumns(t *testing.T) {
	makeNamespace(t)
	for _, c := range []struct {
		kind, path     string
		columns, cells []string
	}{
		{"Spoke", "spokes/eu", []string{"Name", "Region", "State", "Joined", "Available", "Exported", "Age"}, []string{"eu", "eu-west", "Draining", "True", "True", "3"}},
		{"SpokeReport", "namespaces/" + testNamespace + "/spokereports/spoke", []string{"Name", "Spoke", "Slices", "Version", "Age"}, []string{"spoke", "eu", "2", "v1"}},
		{"AgentSlice", "namespaces/" + testNamespace + "/agentslices/slice-1", []string{"Name", "Spoke", "Namespace", "Age"}, []string{"slice-1", "eu", "team-a"}},
		{"GatewayProgram", "namespaces/" + testNamespace + "/gatewayprograms/shop-web-1", []string{"Name", "Kind", "Source namespace", "Source", "Applied", "Age"},
			[]string{"shop-web-1", "HTTPRoute", "shop", "web", "True"}},
		{"TrafficPolicy", "namespaces/" + testNamespace + "/trafficpolicies/steady", []string{"Name", "Preference", "Accepted", "Enforced", "In force", "Age"},
			[]string{"steady", "Weighted", "True", "True", "3"}},
		{"GatewayProgramSet", "namespaces/" + testNamespace + "/gatewayprogramsets/programs", []string{"Name", "Programs", "Ready", "Stale", "Age"}, []string{"programs", "2", "True", "True"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			o := object(c.kind)
			status := o.Object["status"]
			if err := api.client.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := api.client.Delete(context.WithoutCancel(t.Context()), o); err != nil {
					t.Error(err)
				}
			})
			if status != nil {
				o.Object["status"] = runtime.DeepCopyJSONValue(bases[c.kind]["status"])
				if err := api.client.Status().Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			columns, cells := table(t, c.path)
			if diff := cmp.Diff(c.columns, columns); diff != "" {
				t.Errorf("columns: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(c.cells, cells); diff != "" {
				t.Errorf("cells: -want +got\n%s", diff)
			}
		})
	}
}
