package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	yamlwriter "sigs.k8s.io/yaml"
)

const kaosFolder = "test/kaos"

// sampleFiles are the KAOS samples that are shown, as they are.
var sampleFiles = []string{"1-simple-echo-agent.yaml", "2-multi-agent-mcp.yaml"}

// placement says in which clusters a sample's object is created. The first list is the point of the demo: one system
// of agents, spread over three clusters. simple-agent has two places.
var placement = map[string][]string{
	"Agent/coordinator":        {"eu"},
	"Agent/worker-1":           {"us"},
	"Agent/worker-2":           {"ap"},
	"ModelAPI/multi-modelapi":  {"us"},
	"MCPServer/multi-echo-mcp": {"ap"},

	"Agent/simple-agent":        {"us", "ap"},
	"ModelAPI/simple-modelapi":  {"ap"},
	"MCPServer/simple-echo-mcp": {"eu"},
}

// resource is an object of a sample as Isthmus routes it.
type resource struct {
	kind, namespace, name string // kind is the path's: agent, mcp or modelapi
	service               string // what the KAOS operator would call it
	port                  int
	clusters              []string
}

func (r resource) path() string { return "/" + r.namespace + "/" + r.kind + "/" + r.name }

// loadSamples reads the samples, places them and returns the resources and each cluster's manifests.
func loadSamples() ([]resource, map[string][]byte, error) {
	var resources []resource
	manifests := map[string][]byte{}
	add := func(cluster string, o *unstructured.Unstructured) error {
		text, err := yamlwriter.Marshal(o.Object)
		if err != nil {
			return err
		}
		manifests[cluster] = append(append(manifests[cluster], text...), "---\n"...)
		return nil
	}
	for _, name := range sampleFiles {
		objects, err := readObjects(filepath.Join(kaosFolder, "samples", name))
		if err != nil {
			return nil, nil, err
		}
		for _, o := range objects {
			clusters := []string{"eu", "us", "ap"} // a namespace is the same everywhere
			if o.GetKind() != "Namespace" {
				if clusters = placement[o.GetKind()+"/"+o.GetName()]; len(clusters) == 0 {
					return nil, nil, fmt.Errorf("%s: %s %s has no cluster in the demo's placement", name, o.GetKind(), o.GetName())
				}
				resources = append(resources, routed(o, clusters))
			}
			for _, c := range clusters {
				if err := add(c, o); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	return resources, manifests, nil
}

// routed names an object as KAOS's Services and paths do.
func routed(o *unstructured.Unstructured, clusters []string) resource {
	r := resource{namespace: o.GetNamespace(), name: o.GetName(), port: 8000, clusters: clusters}
	switch o.GetKind() {
	case "MCPServer":
		r.kind, r.service = "mcp", "mcpserver-"+r.name
	case "ModelAPI":
		r.kind, r.service = "modelapi", "modelapi-"+r.name
		if mode, _, _ := unstructured.NestedString(o.Object, "spec", "mode"); mode == "Hosted" {
			r.port = 11434
		}
	default:
		r.kind, r.service = "agent", "agent-"+r.name
	}
	return r
}

func readObjects(file string) ([]*unstructured.Unstructured, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}
