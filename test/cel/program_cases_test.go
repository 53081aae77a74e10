package cel

import (
	"fmt"
	"slices"
	"strings"
)

func manifest(i int) any {
	return obj("manifest", obj("apiVersion", "gateway.networking.k8s.io/v1", "kind", "HTTPRoute",
		"metadata", obj("name", fmt.Sprintf("shop-web-%d", i)), "spec", obj("anything", "goes")))
}

func certificate(i int) any {
	return obj("name", fmt.Sprintf("c%d", i), "bundle", "gateway-tls-0", "hash", "0123456789abcdef")
}

func address(i int) any { return obj("type", "IPAddress", "value", fmt.Sprintf("10.0.0.%d", i)) }

func listener(i int) any {
	return obj("name", fmt.Sprintf("l%d", i), "conditions", []any{condition("Accepted")})
}

func parent(i int) any {
	return obj("name", fmt.Sprintf("shop-gw-%d", i), "sectionName", "http", "conditions", []any{condition("Accepted")})
}

var programBase = obj("metadata", obj("name", "shop-web-1", "namespace", testNamespace),
	"spec", obj("epoch", "e1", "source", obj("kind", "HTTPRoute", "namespace", "shop", "name", "web", "uid", "u1", "generation", int64(3)),
		"objects", []any{manifest(1)}, "certificates", []any{certificate(1)}),
	"status", obj("conditions", []any{condition("Applied")}, "appliedGeneration", int64(1), "addresses", []any{address(1)},
		"listeners", []any{listener(1)}, "parents", []any{parent(1)}))

var programSetBase = obj("metadata", obj("name", "programs", "namespace", testNamespace),
	"spec", obj("epoch", "e1", "programs", obj("count", int64(2), "hash", "0123456789abcdef"), "className", "envoy"),
	"status", obj("conditions", []any{condition("Ready"), condition("Stale")}, "acknowledgedEpoch", "e1"))

// conditionCases are those of a list of conditions, of which there may be so many at the most.
func conditionCases(path string, most int) []ruleCase {
	some := func(n int) any { return list(n, func(i int) any { return condition(fmt.Sprint("C", i)) }) }
	return []ruleCase{
		{rule: path + ": minItems", accept: []any{absent, some(1)}, reject: []any{some(0)}},
		{rule: path + ": maxItems", accept: []any{some(most)}, reject: []any{some(most + 1)}},
		{rule: path + ": unique", accept: []any{some(2)}, reject: []any{[]any{condition("A"), condition("A")}}},
	}
}

// sized are the cases of a list with 1 to most items.
func sized(path string, most int, item func(int) any) []ruleCase {
	return []ruleCase{
		{rule: path + ": minItems", accept: []any{list(1, item)}, reject: []any{list(0, item)}},
		{rule: path + ": maxItems", accept: []any{list(most, item)}, reject: []any{list(most+1, item)}},
	}
}

func required(path string, value any) ruleCase {
	return ruleCase{rule: path + ": required", accept: []any{value}, reject: []any{absent}}
}

const manifestPath = "spec.objects[].manifest"

var programCases = slices.Concat(
	[]ruleCase{
		{rule: "spec: required", accept: nil, reject: []any{absent}},
		required("spec.epoch", "e"),
		required("spec.source", obj("kind", "Gateway", "namespace", "a", "name", "b", "uid", "u", "generation", int64(1))),
		required("spec.source.kind", "Gateway"),
		{rule: "spec.source.kind: enum", accept: []any{"Gateway", "HTTPRoute", "GRPCRoute"}, reject: []any{"TCPRoute", ""}},
		required("spec.source.namespace", "a"),
		required("spec.source.name", "a"),
		required("spec.source.uid", "a"),
		required("spec.source.generation", int64(1)),
		{rule: "spec.source.generation: minimum", accept: []any{int64(1)}, reject: []any{int64(0)}},
		required("spec.objects", list(1, manifest)),
		{rule: manifestPath + ": required", accept: []any{manifest(1).(map[string]any)["manifest"]}, reject: []any{absent}},
		{rule: manifestPath + ": only Gateways, HTTPRoutes and GRPCRoutes are programmed", at: manifestPath + ".kind",
			accept: []any{"Gateway", "HTTPRoute", "GRPCRoute"}, reject: []any{"TCPRoute", "Secret", "gateway"}},
		{rule: manifestPath + ": only Gateways, HTTPRoutes and GRPCRoutes are programmed", at: manifestPath + ".apiVersion",
			accept: []any{"gateway.networking.k8s.io/v1beta1"}, reject: []any{"v1", "gateway.networking.k8s.io.example.com/v1"}},
		{rule: manifestPath + ": the name must be set, with at most 63 characters", at: manifestPath + ".metadata",
			accept: []any{obj("name", "a", "annotations", obj("k", "v"))}, reject: []any{obj("labels", obj("a", "b")), obj("name", strings.Repeat("a", 64))}},
		{rule: "spec.certificates: unique", accept: []any{list(2, certificate)}, reject: []any{[]any{certificate(1), certificate(1)}}},
		required("spec.certificates[].name", "a"),
		required("spec.certificates[].bundle", "gateway-tls-1"),
		{rule: "spec.certificates[].bundle: enum", accept: []any{"gateway-tls-0", "gateway-tls-3"}, reject: []any{"join", "gateway-tls-4"}},
		{rule: "spec.certificates[].bundle: minLength", accept: []any{"gateway-tls-0"}, reject: []any{""}},
		{rule: "spec.certificates[].bundle: maxLength", accept: []any{"gateway-tls-0"}, reject: []any{x(64)}},
		required("spec.certificates[].hash", x(16)),
		{rule: "spec.certificates[].hash: pattern", accept: []any{"fedcba9876543210"}, reject: []any{"0123456789ABCDEF"}},
		{rule: "spec.certificates[].hash: minLength", accept: []any{x(16)}, reject: []any{x(15)}},
		{rule: "spec.certificates[].hash: maxLength", accept: []any{x(16)}, reject: []any{x(17)}},

		{rule: "status: minProperties", accept: []any{obj("appliedGeneration", int64(1))}, reject: []any{obj()}},
		{rule: "status.appliedGeneration: minimum", accept: []any{int64(1)}, reject: []any{int64(0)}},
		required("status.addresses[].type", "Hostname"),
		required("status.addresses[].value", "a"),
		{rule: "status.listeners: unique", accept: []any{list(2, listener)}, reject: []any{[]any{listener(1), listener(1)}}},
		required("status.listeners[].name", "a"),
		required("status.parents[].name", "a"),
	},
	bounded("spec.epoch", 64),
	bounded("spec.source.namespace", 63),
	bounded("spec.source.name", 253),
	bounded("spec.source.uid", 64),
	sized("spec.objects", 16, manifest),
	sized("spec.certificates", 256, certificate),
	bounded("spec.certificates[].name", 63),
	conditionCases("status.conditions", 16),
	sized("status.addresses", 16, address),
	bounded("status.addresses[].type", 253),
	bounded("status.addresses[].value", 253),
	sized("status.listeners", 64, listener),
	bounded("status.listeners[].name", 253),
	conditionCases("status.listeners[].conditions", 8),
	sized("status.parents", 64, parent),
	bounded("status.parents[].name", 253),
	bounded("status.parents[].sectionName", 253),
	conditionCases("status.parents[].conditions", 8),
)

var programSetCases = slices.Concat(
	[]ruleCase{
		{rule: ": a spoke has one set of programs, named programs", at: "metadata.name", accept: []any{"programs"}, reject: []any{"programs2", "eu"}},
		{rule: "spec: required", accept: nil, reject: []any{absent}},
		required("spec.epoch", "e"),
		required("spec.programs", obj("count", int64(0), "hash", x(16))),
		required("spec.programs.count", int64(1)),
		{rule: "spec.programs.count: minimum", accept: []any{int64(0)}, reject: []any{int64(-1)}},
		required("spec.programs.hash", x(16)),
		{rule: "spec.programs.hash: pattern", accept: []any{"fedcba9876543210"}, reject: []any{"0123456789ABCDEF"}},
		{rule: "spec.programs.hash: minLength", accept: []any{x(16)}, reject: []any{x(15)}},
		{rule: "spec.programs.hash: maxLength", accept: []any{x(16)}, reject: []any{x(17)}},
		{rule: "status: minProperties", accept: []any{obj("acknowledgedEpoch", "e")}, reject: []any{obj()}},
	},
	bounded("spec.epoch", 64),
	bounded("spec.className", 253),
	conditionCases("status.conditions", 16),
	bounded("status.acknowledgedEpoch", 64),
)
