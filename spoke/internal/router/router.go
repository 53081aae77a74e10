package router

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// Type URLs of what a router's Envoy subscribes to.
const (
	ClusterType    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	AssignmentType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType   = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType      = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ScopeType      = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
	ExtensionType  = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	SecretType     = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

const (
	// Local names the internal listener, the cluster that leads to it, and the route table that it serves.
	Local = "local"
	// MissHeader says, between routers only, that a request reached no pod, or that it may run twice and no pod answered it.
	MissHeader = "x-isthmus-miss"
	// RetryOnHeader is "reset" on requests that may be sent again after a pod broke the connection: of a method that may run
	// twice, where no policy forbids it. Edges set it and let no client do so.
	RetryOnHeader = "x-isthmus-retry-on"
	// ServedByHeader tells clients which spoke answered.
	ServedByHeader = "x-isthmus-served-by"
	// ReadyScope is the scope whose table tells whether the router is ready, at /-/ready.
	ReadyScope = "isthmus/ready"
	// EastwestListener waits for certificates; all others work without.
	EastwestListener = "eastwest"
)

//go:embed listeners.yaml
var listenersYAML string

//go:embed lua.lua
var luaScript string

// safeMethods may run twice.
var safeMethods = []string{"GET", "HEAD", "OPTIONS"}

// Ports are where the router listens.
type Ports struct{ Edge, Gateway, Mirror, Eastwest int }

// Headers that programmed routes of Gateways set, each believed by one listener alone: where a request is for, and where its copy is.
const (
	targetHeader = "x-isthmus-target"
	mirrorHeader = "x-isthmus-mirror"
)

// Listeners returns the listeners edge, gateway, mirror and local, and, where the router has its certificates, eastwest. bind is
// the address to listen on; an IPv6 wildcard takes IPv4 too.
func Listeners(ports Ports, bind string, certificates bool) ([]delta.Resource, error) {
	names := []string{Local, "edge", "gateway", "mirror"}
	if certificates {
		names = append(names, EastwestListener)
	}
	data, err := templateData(ports, bind)
	if err != nil {
		return nil, err
	}
	out := make([]delta.Resource, 0, len(names))
	for _, name := range names {
		l := &listenerv3.Listener{}
		if err := render(name, data, l); err != nil {
			return nil, err
		}
		r, err := delta.NewResource(name, l)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// LocalCluster is the cluster that leads to the internal listener.
func LocalCluster() (delta.Resource, error) {
	c := &clusterv3.Cluster{}
	if err := render("localCluster", nil, c); err != nil {
		return delta.Resource{}, err
	}
	return delta.NewResource(Local, c)
}

// Readiness is the scope of /-/ready. It is always served, so that a listener never waits for its first scope.
func Readiness(ready bool) (delta.Resource, error) {
	var action *routev3.Route_DirectResponse
	if ready {
		action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}}
	} else {
		action = notReady.Direct()
	}
	return delta.NewResource(ReadyScope, &routev3.ScopedRouteConfiguration{
		Name: ReadyScope,
		Key:  ScopeKey("-"),
		RouteConfiguration: &routev3.RouteConfiguration{
			Name: ReadyScope,
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{
				{Name: "ready", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: "/-/ready"}}, Action: action},
				{Name: "unknown", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}, Action: unknownNamespace.Direct()},
			}}},
		},
	})
}

// ScopeKey is the key of a scope: one fragment, the first segment of the path.
func ScopeKey(segment string) *routev3.ScopedRouteConfiguration_Key {
	return &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{
		{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: segment}},
	}}
}

func templateData(ports Ports, bind string) (map[string]any, error) {
	for _, p := range []int{ports.Edge, ports.Gateway, ports.Mirror, ports.Eastwest} {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("port %d: must be between 1 and 65535", p)
		}
	}
	edge, err := inlineJSON(edgeReplies())
	if err != nil {
		return nil, err
	}
	local, err := inlineJSON(localReplies())
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"EdgePort": ports.Edge, "GatewayPort": ports.Gateway, "MirrorPort": ports.Mirror, "EastwestPort": ports.Eastwest,
		"BindAddress": `"` + bind + `"`, "IPv4Compat": bind == "::",
		"EdgeReplies": edge, "LocalReplies": local,
		"Lua":        map[string]string{"gateway": script(targetHeader, false), "mirror": script(mirrorHeader, true)},
		"Idempotent": safeMethods, "RetryOnHeader": RetryOnHeader,
		"SDS": `{api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}, resource_api_version: V3}`,
	}, nil
}

// script takes a request's target from a header; a request without it is refused where required.
func script(header string, required bool) string {
	return fmt.Sprintf("local target, required = %q, %t\n", header, required) + luaScript
}

// render fills a template of listeners.yaml and reads the result as m, strictly.
func render(name string, data any, m proto.Message) error {
	t := template.New("listeners")
	t.Funcs(template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b bytes.Buffer
			err := t.ExecuteTemplate(&b, name, data)
			return strings.TrimPrefix(b.String(), "\n"), err
		},
		"indent": func(n int, s string) string {
			pad := strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
		},
		"dict": func(kv ...any) map[string]any {
			m := map[string]any{"ErrorsOnly": false}
			for i := 0; i+1 < len(kv); i += 2 {
				m[kv[i].(string)] = kv[i+1]
			}
			return m
		},
	})
	if _, err := t.Parse(listenersYAML); err != nil {
		return fmt.Errorf("template of the listeners: %w", err)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, data); err != nil {
		return fmt.Errorf("listener %s: %w", name, err)
	}
	j, err := yaml.YAMLToJSON(b.Bytes())
	if err != nil {
		return fmt.Errorf("listener %s: %w", name, err)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		return fmt.Errorf("listener %s: %w", name, err)
	}
	return nil
}
