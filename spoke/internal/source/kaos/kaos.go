package kaos

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
)

// Ports of the Services that the operator makes.
const (
	port       = 8000
	ollamaPort = 11434
	// The longest timeout that a slice can carry stands for KAOS's "0s", no timeout.
	longestTimeout = 86400
)

// Kinds of KAOS.
func Kinds() []source.Kind {
	kind := func(t v1alpha1.ResourceType, plural string, parse func(*unstructured.Unstructured) (source.Resource, bool, error)) source.Kind {
		return source.Kind{Type: t, Group: "kaos.tools", Plural: plural, Versions: []string{"v1alpha1"}, Parse: parse}
	}
	return []source.Kind{
		kind(v1alpha1.TypeAgent, "agents", parseAgent),
		kind(v1alpha1.TypeMCP, "mcpservers", parseMCPServer),
		kind(v1alpha1.TypeModelAPI, "modelapis", parseModelAPI),
	}
}

// parseAgent: an agent with agentNetwork.expose: false has no Service and asks not to be called.
func parseAgent(u *unstructured.Unstructured) (source.Resource, bool, error) {
	expose, set, err := unstructured.NestedBool(u.Object, "spec", "agentNetwork", "expose")
	if err != nil {
		return source.Resource{}, false, err
	}
	if set && !expose {
		return source.Resource{}, false, nil
	}
	return resource(u, "agent-", port, v1alpha1.ProtocolA2A, v1alpha1.ProtocolHTTP)
}

func parseMCPServer(u *unstructured.Unstructured) (source.Resource, bool, error) {
	return resource(u, "mcpserver-", port, v1alpha1.ProtocolHTTP, v1alpha1.ProtocolMCP)
}

func parseModelAPI(u *unstructured.Unstructured) (source.Resource, bool, error) {
	mode, _, err := unstructured.NestedString(u.Object, "spec", "mode")
	if err != nil {
		return source.Resource{}, false, err
	}
	switch mode {
	case "Proxy":
		return resource(u, "modelapi-", port, v1alpha1.ProtocolHTTP, v1alpha1.ProtocolOpenAI)
	case "Hosted":
		return resource(u, "modelapi-", ollamaPort, v1alpha1.ProtocolHTTP, v1alpha1.ProtocolOpenAI)
	}
	return source.Resource{}, false, fmt.Errorf("spec.mode %q: want Proxy or Hosted", mode)
}

func resource(u *unstructured.Unstructured, prefix string, port int32, protocols ...v1alpha1.Protocol) (source.Resource, bool, error) {
	timeout, err := timeoutSeconds(u)
	if err != nil {
		return source.Resource{}, false, err
	}
	return source.Resource{
		Service: prefix + u.GetName(), Port: port, Protocols: protocols, RequestTimeoutSeconds: timeout,
	}, true, nil
}

// timeoutSeconds is spec.gatewayRoute.timeout in whole seconds, rounded up; 0 when it is not set.
func timeoutSeconds(u *unstructured.Unstructured) (int32, error) {
	text, set, err := unstructured.NestedString(u.Object, "spec", "gatewayRoute", "timeout")
	if err != nil || !set || text == "" {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("spec.gatewayRoute.timeout %q: want a duration such as 30s or 2m", text)
	}
	if d == 0 {
		return longestTimeout, nil
	}
	return int32(min((d+time.Second-1)/time.Second, longestTimeout)), nil
}
