package kaos_test

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
)

func parse(t *testing.T, kind v1alpha1.ResourceType, spec string) (source.Resource, bool, error) {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte("apiVersion: kaos.tools/v1alpha1\nkind: Any\nmetadata: {namespace: ns, name: x}\nspec: "+spec), u); err != nil {
		t.Fatal(err)
	}
	kinds := kaos.Kinds()
	return kinds[slices.IndexFunc(kinds, func(k source.Kind) bool { return k.Type == kind })].Parse(u)
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		kind    v1alpha1.ResourceType
		spec    string
		service string // empty: not exported
		port    int32
		timeout int32
	}{
		"agent":                    {v1alpha1.TypeAgent, "{model: m}", "agent-x", 8000, 0},
		"agent that is exposed":    {v1alpha1.TypeAgent, "{agentNetwork: {expose: true}}", "agent-x", 8000, 0},
		"agent that is not":        {v1alpha1.TypeAgent, "{agentNetwork: {expose: false}}", "", 0, 0},
		"MCP server":               {v1alpha1.TypeMCP, "{runtime: custom, gatewayRoute: {timeout: 1m30s}}", "mcpserver-x", 8000, 90},
		"model API, proxy":         {v1alpha1.TypeModelAPI, "{mode: Proxy}", "modelapi-x", 8000, 0},
		"model API, hosted":        {v1alpha1.TypeModelAPI, "{mode: Hosted, gatewayRoute: {timeout: 1500ms}}", "modelapi-x", 11434, 2},
		"0s is no timeout":         {v1alpha1.TypeAgent, "{gatewayRoute: {timeout: 0s}}", "agent-x", 8000, 86400},
		"longer than slices carry": {v1alpha1.TypeAgent, "{gatewayRoute: {timeout: 100h}}", "agent-x", 8000, 86400},
	} {
		t.Run(name, func(t *testing.T) {
			r, exported, err := parse(t, c.kind, c.spec)
			if err != nil || exported != (c.service != "") || r.Service != c.service || r.Port != c.port || r.RequestTimeoutSeconds != c.timeout {
				t.Errorf("%+v, exported %t, %v", r, exported, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		kind v1alpha1.ResourceType
		spec string
	}{
		"mode of the future":         {v1alpha1.TypeModelAPI, "{mode: Remote}"},
		"mode is missing":            {v1alpha1.TypeModelAPI, "{}"},
		"mode is no text":            {v1alpha1.TypeModelAPI, "{mode: 3}"},
		"timeout is no duration":     {v1alpha1.TypeMCP, "{gatewayRoute: {timeout: soon}}"},
		"timeout is no text":         {v1alpha1.TypeMCP, "{gatewayRoute: {timeout: 30}}"},
		"expose is no yes or no":     {v1alpha1.TypeAgent, "{agentNetwork: {expose: maybe}}"},
		"a list where a map belongs": {v1alpha1.TypeAgent, "{gatewayRoute: [1]}"},
	} {
		t.Run(name, func(t *testing.T) {
			if r, _, err := parse(t, c.kind, c.spec); err == nil {
				t.Errorf("accepted as %+v", r)
			}
		})
	}
}
