package cel

import (
	"fmt"
	"slices"
	"strings"
)

// ruleCase is one rule with values on both sides of it. The path to set is the part of rule before the colon, unless
// at says otherwise; "metadata.name" and lists ("a[]" is the first item) work too. absent as a value removes the field.
type ruleCase struct {
	rule   string
	at     string
	accept []any
	reject []any
	says   string // what the refusal must hold; by default the words for the constraint
}

type absentValue struct{}

var absent = absentValue{}

// words are the API server's for each constraint of a schema.
var words = map[string]string{
	"required": "Required value", "enum": "Unsupported value", "pattern": "should match",
	"minLength": "should be at least", "maxLength": "Too long",
	"minimum": "should be greater than or equal to", "maximum": "should be less than or equal to",
	"minItems": "should have at least", "maxItems": "Too many",
	"minProperties": "should have at least", "unique": "Duplicate value",
}

// x is n characters that are fine everywhere: zeros.
func x(n int) string { return strings.Repeat("0", n) }

// list is n items made by a function of the index.
func list(n int, item func(int) any) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = item(i)
	}
	return out
}

func text(i int) any { return fmt.Sprintf("n%d", i) }

func obj(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[pairs[i].(string)] = pairs[i+1]
	}
	return out
}

// bases are valid objects with every field set.
var bases = map[string]map[string]any{
	"Spoke": obj("metadata", obj("name", "eu"),
		"spec", obj("location", obj("region", "eu-west", "zone", "a", "latitude", "50.11", "longitude", "-8.68"),
			"namespaces", []any{"*"}, "gateway", obj("className", "envoy"), "state", "Draining"),
		"status", obj("namespace", "isthmus-spoke-eu", "identity", "spiffe://fleet/spoke/eu/01234567", "version", "v1", "exported", int64(3),
			"routers", []any{obj("host", "10.0.0.1", "port", int64(15443))},
			"conditions", []any{condition("Joined"), condition("Available")})),
	"SpokeReport": obj("metadata", obj("name", "spoke", "namespace", testNamespace),
		"spec", obj("spoke", "eu", "session", "s1", "slices", obj("count", int64(2), "hash", "0123456789abcdef"),
			"routers", []any{obj("host", "10.0.0.1", "port", int64(15443))}, "version", "v1", "unreachable", []any{"us"},
			"trust", obj("bundle", "0b", "authority", "0a"))),
	"AgentSlice": obj("metadata", obj("name", "slice-1", "namespace", testNamespace),
		"spec", obj("spoke", "eu", "sourceNamespace", "team-a", "resources", []any{
			obj("type", "agent", "name", "writer", "protocols", []any{"HTTP", "A2A"}, "readiness", "Ready", "requestTimeoutSeconds", int64(60),
				"labels", []any{obj("key", "team", "value", "a")})}),
		"status", obj("observedGeneration", int64(1),
			"entries", []any{obj("type", "agent", "name", "writer", "reason", "Invalid", "message", "m")})),
	"GatewayProgram":    programBase,
	"GatewayProgramSet": programSetBase,
	"TrafficPolicy":     policyBase,
}

func condition(kind string) any {
	return obj("type", kind, "status", "True", "reason", "Enrolled", "message", "", "lastTransitionTime", "2026-01-01T00:00:00Z")
}

func router(i int) any { return obj("host", fmt.Sprintf("r%d", i), "port", int64(1)) }

func resource(i int) any {
	return obj("type", "agent", "name", fmt.Sprintf("a%d", i), "readiness", "Ready")
}

// bounded are the two cases of a text whose length is bounded from 1 to most.
func bounded(path string, most int) []ruleCase {
	return []ruleCase{
		{rule: path + ": minLength", accept: []any{x(1)}, reject: []any{""}},
		{rule: path + ": maxLength", accept: []any{x(most)}, reject: []any{x(most + 1)}},
	}
}

// routerCases are those of a list of router addresses.
func routerCases(path string) []ruleCase {
	return append(bounded(path+"[].host", 253), []ruleCase{
		{rule: path + ": minItems", accept: []any{absent, list(1, router)}, reject: []any{list(0, router)}},
		{rule: path + ": maxItems", accept: []any{list(16, router)}, reject: []any{list(17, router)}},
		{rule: path + "[].host: required", accept: []any{"::1"}, reject: []any{absent}},
		{rule: path + "[].port: required", accept: []any{int64(443)}, reject: []any{absent}},
		{rule: path + "[].port: minimum", accept: []any{int64(1)}, reject: []any{int64(0)}},
		{rule: path + "[].port: maximum", accept: []any{int64(65535)}, reject: []any{int64(65536)}},
	}...)
}

var cases = map[string][]ruleCase{"Spoke": spokeCases, "SpokeReport": reportCases, "AgentSlice": sliceCases,
	"GatewayProgram": programCases, "GatewayProgramSet": programSetCases, "TrafficPolicy": policyCases}

var spokeCases = slices.Concat(
	[]ruleCase{
		{rule: ": the name must be a DNS label of at most 40 characters", at: "metadata.name",
			accept: []any{"a", "a-1", x(40)}, reject: []any{"a.b", x(41)}},
		{rule: "spec: required", accept: []any{obj("namespaces", []any{"*"})}, reject: []any{absent}},

		{rule: "spec.location: minProperties", accept: []any{absent, obj("region", "r")}, reject: []any{obj()}},
		{rule: "spec.location: set both latitude and longitude, or neither",
			accept: []any{obj("region", "r"), obj("latitude", "1", "longitude", "2")},
			reject: []any{obj("latitude", "1"), obj("longitude", "1", "region", "r")}},
		{rule: "spec.location: a zone needs its region", accept: []any{obj("region", "r", "zone", "z")}, reject: []any{obj("zone", "z")}},
		{rule: "spec.location.region: pattern", accept: []any{"EU_west-1.a", "1"}, reject: []any{"-a", "a-", "a b", "ä"}},
		{rule: "spec.location.zone: pattern", accept: []any{"EU_west-1.a", "1"}, reject: []any{"-a", "a-", "a/b"}},
		{rule: "spec.location.latitude: pattern", accept: []any{"-1.5", "0", "45.0123456789"}, reject: []any{"1e1", "+1", ".5", "5.", "100", "NaN"}},
		{rule: "spec.location.latitude: minLength", accept: []any{"1"}, reject: []any{""}},
		{rule: "spec.location.latitude: maxLength", accept: []any{"-45.0123456789"}, reject: []any{"45.01234567890123"}},
		{rule: "spec.location.latitude: latitude must be between -90 and 90 degrees", accept: []any{"90", "-90.0"}, reject: []any{"90.1", "-90.0000000001"}},
		{rule: "spec.location.longitude: pattern", accept: []any{"-1.5", "0", "145.0123456789"}, reject: []any{"1e1", "+1", ".5", "5.", "1000"}},
		{rule: "spec.location.longitude: minLength", accept: []any{"1"}, reject: []any{""}},
		{rule: "spec.location.longitude: maxLength", accept: []any{"-145.0123456789"}, reject: []any{"145.0123456789012"}},
		{rule: "spec.location.longitude: longitude must be between -180 and 180 degrees", accept: []any{"180", "-180.0"}, reject: []any{"180.1", "-999"}},

		{rule: "spec.namespaces: required", accept: []any{[]any{"*"}}, reject: []any{absent}},
		{rule: "spec.namespaces: minItems", accept: []any{list(1, text)}, reject: []any{list(0, text)}},
		{rule: "spec.namespaces: maxItems", accept: []any{list(64, text)}, reject: []any{list(65, text)}},
		{rule: "spec.namespaces: unique", accept: []any{[]any{"a", "b"}}, reject: []any{[]any{"a", "a"}}},
		{rule: "spec.namespaces[]: pattern", accept: []any{"*", "team-*", "*-prod", "a"}, reject: []any{"-a", "a-", "A", "a.b", "a?"}},

		{rule: "spec.gateway: minProperties", accept: []any{absent, obj("className", "c")}, reject: []any{obj()}},
		{rule: "spec.state: enum", accept: []any{"Active", "Draining", absent}, reject: []any{"Off", ""}},

		{rule: "status: minProperties", accept: []any{obj("version", "v")}, reject: []any{obj()}},
		{rule: "status.conditions: minItems", accept: []any{absent, []any{condition("Joined")}}, reject: []any{[]any{}}},
		{rule: "status.conditions: maxItems",
			accept: []any{list(16, func(i int) any { return condition(fmt.Sprint("C", i)) })},
			reject: []any{list(17, func(i int) any { return condition(fmt.Sprint("C", i)) })}},
		{rule: "status.conditions: unique", accept: []any{[]any{condition("A"), condition("B")}}, reject: []any{[]any{condition("A"), condition("A")}}},
		{rule: "status.exported: minimum", accept: []any{int64(0)}, reject: []any{int64(-1)}},
	},
	bounded("spec.location.region", 63),
	bounded("spec.location.zone", 63),
	bounded("spec.namespaces[]", 63),
	bounded("spec.gateway.className", 253),
	bounded("status.namespace", 63),
	bounded("status.identity", 512),
	bounded("status.version", 64),
	routerCases("status.routers"),
)

var reportCases = slices.Concat(
	[]ruleCase{
		{rule: ": a spoke has one report, named spoke", at: "metadata.name", accept: []any{"spoke"}, reject: []any{"spoke2", "eu"}},
		{rule: "spec: required", accept: nil, reject: []any{absent}},
		{rule: "spec.spoke: required", accept: []any{"us"}, reject: []any{absent}},
		{rule: "spec.session: required", accept: []any{"s"}, reject: []any{absent}},
		{rule: "spec.slices: required", accept: []any{obj("count", int64(0), "hash", x(16))}, reject: []any{absent}},
		{rule: "spec.slices.count: required", accept: []any{int64(1)}, reject: []any{absent}},
		{rule: "spec.slices.count: minimum", accept: []any{int64(0)}, reject: []any{int64(-1)}},
		{rule: "spec.slices.hash: required", accept: []any{"0123456789abcdef"}, reject: []any{absent}},
		{rule: "spec.slices.hash: pattern", accept: []any{"fedcba9876543210"}, reject: []any{"0123456789ABCDEF", "0123456789abcdeg"}},
		{rule: "spec.slices.hash: minLength", accept: []any{x(16)}, reject: []any{x(15)}},
		{rule: "spec.slices.hash: maxLength", accept: []any{x(16)}, reject: []any{x(17)}},
		{rule: "spec.probing: enum", accept: []any{absent, "Active", "Inactive"}, reject: []any{"", "Yes"}},
		{rule: "spec.trust.bundle: required", accept: []any{"0c"}, reject: []any{absent}},
		{rule: "spec.trust.bundle: pattern", accept: []any{"0123456789abcdef"}, reject: []any{"0A", "g"}},
		{rule: "spec.trust.authority: required", accept: []any{"0c"}, reject: []any{absent}},
		{rule: "spec.trust.authority: pattern", accept: []any{"0123456789abcdef"}, reject: []any{"0A", "g"}},
		{rule: "spec.unreachable: minItems", accept: []any{absent, list(1, text)}, reject: []any{list(0, text)}},
		{rule: "spec.unreachable: maxItems", accept: []any{list(1024, text)}, reject: []any{list(1025, text)}},
		{rule: "spec.unreachable: unique", accept: []any{[]any{"a", "b"}}, reject: []any{[]any{"a", "a"}}},
	},
	bounded("spec.spoke", 40),
	bounded("spec.session", 64),
	bounded("spec.version", 64),
	bounded("spec.unreachable[]", 40),
	bounded("spec.trust.bundle", 64),
	bounded("spec.trust.authority", 128),
	routerCases("spec.routers"),
)

var sliceCases = slices.Concat(
	[]ruleCase{
		{rule: "spec: required", accept: nil, reject: []any{absent}},
		{rule: "spec.spoke: required", accept: []any{"us"}, reject: []any{absent}},
		{rule: "spec.sourceNamespace: required", accept: []any{"b"}, reject: []any{absent}},
		{rule: "spec.sourceNamespace: pattern", accept: []any{"a-1"}, reject: []any{"-a", "a-", "A", "a.b", "*"}},
		{rule: "spec.resources: required", accept: []any{list(1, resource)}, reject: []any{absent}},
		{rule: "spec.resources: minItems", accept: []any{list(1, resource)}, reject: []any{list(0, resource)}},
		{rule: "spec.resources: maxItems", accept: []any{list(100, resource)}, reject: []any{list(101, resource)}},
		{rule: "spec.resources[].type: required", accept: []any{"agent"}, reject: []any{absent}},
		{rule: "spec.resources[].type: enum", accept: []any{"agent", "mcp", "modelapi", "service"}, reject: []any{"Agent", "pod", ""}},
		{rule: "spec.resources[].name: required", accept: []any{"Not_a_DNS.label"}, reject: []any{absent}},
		{rule: "spec.resources[].readiness: required", accept: []any{"Ready"}, reject: []any{absent}},
		{rule: "spec.resources[].readiness: enum", accept: []any{"Ready", "NotReady"}, reject: []any{"ready", "Unknown"}},
		{rule: "spec.resources[].protocols: minItems", accept: []any{absent, []any{"HTTP"}}, reject: []any{[]any{}}},
		{rule: "spec.resources[].protocols: maxItems", accept: []any{[]any{"HTTP", "GRPC", "A2A", "MCP", "OpenAI"}}, reject: []any{list(9, text)}},
		{rule: "spec.resources[].protocols: unique", accept: []any{[]any{"HTTP", "MCP"}}, reject: []any{[]any{"HTTP", "HTTP"}}},
		{rule: "spec.resources[].protocols[]: enum", accept: []any{"HTTP", "GRPC", "OpenAI"}, reject: []any{"http", "TCP"}},
		{rule: "spec.resources[].requestTimeoutSeconds: minimum", accept: []any{absent, int64(1)}, reject: []any{int64(0)}},
		{rule: "spec.resources[].requestTimeoutSeconds: maximum", accept: []any{int64(86400)}, reject: []any{int64(86401)}},
		{rule: "spec.resources[].labels: minItems", accept: []any{absent, list(1, label)}, reject: []any{list(0, label)}},
		{rule: "spec.resources[].labels: maxItems", accept: []any{list(16, label)}, reject: []any{list(17, label)}},
		{rule: "spec.resources[].labels: unique", accept: []any{list(2, label)}, reject: []any{[]any{label(1), label(1)}}},
		{rule: "spec.resources[].labels[].key: required", accept: []any{"k"}, reject: []any{absent}},
		{rule: "spec.resources[].labels[].value: minLength", accept: []any{"", absent}, reject: nil}, // 0: says that empty is meant
		{rule: "spec.resources[].labels[].value: maxLength", accept: []any{x(63)}, reject: []any{x(64)}},

		{rule: "status: minProperties", accept: []any{obj("observedGeneration", int64(1))}, reject: []any{obj()}},
		{rule: "status.observedGeneration: minimum", accept: []any{int64(1)}, reject: []any{int64(0)}},
		{rule: "status.entries: minItems", accept: []any{absent, list(1, entry)}, reject: []any{list(0, entry)}},
		{rule: "status.entries: maxItems", accept: []any{list(100, entry)}, reject: []any{list(101, entry)}},
		{rule: "status.entries[].type: required", accept: []any{"pod"}, reject: []any{absent}},
		{rule: "status.entries[].name: required", accept: []any{"n"}, reject: []any{absent}},
		{rule: "status.entries[].message: required", accept: []any{"m"}, reject: []any{absent}},
		{rule: "status.entries[].reason: required", accept: []any{"WrongSpoke"}, reject: []any{absent}},
		{rule: "status.entries[].reason: enum",
			accept: []any{"NamespaceNotAllowed", "InvalidName", "DuplicateEntry", "WrongSpoke", "PropertiesConflict", "LimitExceeded", "Invalid"}, reject: []any{"Other"}},
	},
	bounded("spec.spoke", 40),
	bounded("spec.sourceNamespace", 63),
	bounded("spec.resources[].name", 253),
	bounded("spec.resources[].labels[].key", 317),
	bounded("status.entries[].type", 63),
	bounded("status.entries[].name", 253),
	bounded("status.entries[].message", 1024),
)

func label(i int) any { return obj("key", fmt.Sprintf("k%d", i), "value", "v") }

func entry(i int) any {
	return obj("type", "agent", "name", fmt.Sprintf("a%d", i), "reason", "Invalid", "message", "m")
}
