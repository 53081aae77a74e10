package charts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// TestBadValues sets one value each and expects an error that names it.
func TestBadValues(t *testing.T) {
	for _, c := range []struct{ chart, set, want string }{
		{"hub", "replica=2", "replica"},
		{"hub", "replicas=many", "/replicas"},
		{"hub", "fleet=Prod", "/fleet"},
		{"hub", "image.digest=sha256:abc", "/image/digest"},
		{"hub", "image.repository=hub:latest@x", "/image/repository"},
		{"hub", "apiServer.url=http://api", "/apiServer/url"},
		{"hub", "apiServer.url=", "apiServer.url is required"},
		{"hub", "apiServer.caBundle=abc", "/apiServer/caBundle"},
		{"hub", "grpc.advertiseAddress=hub.example.com", "/grpc/advertiseAddress"},
		{"hub", "grpc.advertiseAddress=", "grpc.advertiseAddress is required"},
		{"hub", "leaseDuration=10", "/leaseDuration"},
		{"hub", "keepalive.interval=1", "/keepalive/interval"},
		{"hub", "certificates.lifetime=0h", "/certificates/lifetime"},
		{"hub", "certificates.lifetime=30m", "/certificates/lifetime"},
		{"hub", "certificates.lifetime=2161h", "/certificates/lifetime"},
		{"hub", "certificates.renewalGrace=8761h", "/certificates/renewalGrace"},
		{"hub", "keepalive.jitter=1s", "/keepalive"},
		{"hub", "massExpiryPercent=101", "/massExpiryPercent"},
		{"hub", "service.type=External", "/service/type"},
		{"hub", "service.port=70000", "/service/port"},
		{"hub", "networkPolicy.debugFrom[0].cidr=1.2.3.4/32", "/networkPolicy/debugFrom/0"},
		{"hub", "gateway.certificateNamespaces[0]=Certs", "/gateway/certificateNamespaces/0"},
		{"hub", "gateway.className=x", "/gateway"},
		{"hub", "flowControl.leaseShares=0", "/flowControl/leaseShares"},
		{"hub", "resources.limit.memory=1Gi", "/resources"},
		{"hub", "resources.limits.memory=lots", "/resources/limits/memory"},
		{"hub", "podDisruptionBudget.maxUnavailable=half", "/podDisruptionBudget/maxUnavailable"},
		{"spoke", "spoke.name=", "spoke.name is required"},
		{"spoke", "spoke.name=EU_1", "/spoke/name"},
		{"spoke", "spoke.name=" + strings.Repeat("a", 41), "/spoke/name"},
		{"spoke", "hub.address=", "hub.address is required"},
		{"spoke", "hub.address=https://hub:8443", "/hub/address"},
		{"spoke", "hub.caBundle=", "hub.caBundle is required"},
		{"spoke", "hub.caBundle=garbage", "/hub/caBundle"},
		{"spoke", "hub.adress=hub:8443", "/hub"},
		{"spoke", "router.address=router", "/router/address"},
		{"spoke", "router.drainSeconds=0", "/router/drainSeconds"},
		{"spoke", "router.envoy.concurrency=0", "/router/envoy/concurrency"},
		{"spoke", "router.envoy.logLevel=loud", "/router/envoy/logLevel"},
		{"spoke", "router.service.ports.edge=0", "/router/service/ports/edge"},
		{"spoke", "router.service.nodePorts.eastwest=99999", "/router/service/nodePorts/eastwest"},
		{"spoke", "router.persistence.size=big", "/router/persistence/size"},
		{"spoke", "controller.extraArgs=--x", "/controller/extraArgs"},
		{"spoke", "controller.topologySpreadConstraints[0].maxSkew=1", "/controller/topologySpreadConstraints/0"},
		{"spoke", "podMonitor.interval=often", "/podMonitor/interval"},
	} {
		t.Run(c.chart+"/"+c.set, func(t *testing.T) {
			values := readValues(t, c.chart+"-defaults")
			if err := strvals.ParseInto(c.set, values); err != nil {
				t.Fatal(err)
			}
			_, err := render(t.Context(), c.chart, values)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error does not name %q: %v", c.want, err)
			}
		})
	}
}

// TestSchemaKnowsEveryDefault walks values.yaml and the schema side by side: what one has the other has, and no object
// with named keys admits others.
func TestSchemaKnowsEveryDefault(t *testing.T) {
	for _, chart := range []string{"hub", "spoke"} {
		t.Run(chart, func(t *testing.T) {
			var schema schemaNode
			var defaults map[string]any
			if err := json.Unmarshal(readFile(t, chart, "values.schema.json"), &schema); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal(readFile(t, chart, "values.yaml"), &defaults); err != nil {
				t.Fatal(err)
			}
			compareSchema(t, &schema, &schema, defaults, "")
		})
	}
}

func readFile(t *testing.T, chart, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(chartDir(chart), name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type schemaNode struct {
	Ref                  string                 `json:"$ref"`
	Properties           map[string]*schemaNode `json:"properties"`
	AdditionalProperties json.RawMessage        `json:"additionalProperties"`
	Defs                 map[string]*schemaNode `json:"$defs"`
}

func compareSchema(t *testing.T, root, node *schemaNode, value any, path string) {
	t.Helper()
	if name, ok := strings.CutPrefix(node.Ref, "#/$defs/"); ok {
		node = root.Defs[name]
		if node == nil {
			t.Fatalf("%s: no definition %s", path, name)
		}
	}
	if len(node.Properties) == 0 {
		return
	}
	if string(node.AdditionalProperties) != "false" {
		t.Errorf("%s: additionalProperties is not false", path)
	}
	object, _ := value.(map[string]any)
	for key, child := range node.Properties {
		v, ok := object[key]
		// global is Helm's own; resource claims have no default.
		if !ok && key != "global" && key != "claims" {
			t.Errorf("%s/%s is in the schema and not in values.yaml", path, key)
		}
		compareSchema(t, root, child, v, path+"/"+key)
	}
	for key := range object {
		if node.Properties[key] == nil {
			t.Errorf("%s/%s is in values.yaml and not in the schema", path, key)
		}
	}
}
