package cel

import (
	"fmt"
	"slices"
)

func target(i int) any {
	return obj("kind", "Resource", "type", "agent", "name", fmt.Sprintf("a%d", i))
}

func place(i int) any { return obj("kind", "Spoke", "name", fmt.Sprintf("s%d", i)) }

func weight(i int) any {
	return obj("kind", "Spoke", "name", fmt.Sprintf("s%d", i), "weight", int64(1))
}

func selector(labels ...any) any { return obj("kind", "Selector", "matchLabels", labels) }

var policyBase = obj("metadata", obj("name", "steady", "namespace", testNamespace),
	"spec", obj("targetRefs", []any{target(1)},
		"placement", obj("preference", "Weighted", "weights", []any{weight(1), obj("kind", "Region", "name", "eu", "weight", int64(0))},
			"failover", obj("order", "Region", "first", []any{place(1)}), "minHealthyPercent", int64(50)),
		"retries", obj("attempts", int64(2), "retryOn", []any{"ConnectFailure", "Reset"}),
		"timeouts", obj("firstByteSeconds", int64(10), "totalSeconds", int64(60)),
		"affinity", obj("kind", "Cookie", "name", "session"),
		"circuitBreaker", obj("maxRequests", int64(10), "maxPendingRequests", int64(5))),
	"status", obj("conditions", []any{condition("Accepted"), condition("Enforced")}, "targets", int64(4), "inForce", int64(3)))

// within are the cases of a number with bounds.
func within(path string, least, most int64) []ruleCase {
	return []ruleCase{
		{rule: path + ": minimum", accept: []any{least}, reject: []any{least - 1, int64(-5)}},
		{rule: path + ": maximum", accept: []any{most}, reject: []any{most + 1}},
	}
}

const targetPath, weightPath = "spec.targetRefs[]", "spec.placement.weights[]"

var policyCases = slices.Concat(
	[]ruleCase{
		{rule: "spec: required", accept: []any{obj("targetRefs", []any{target(1)}, "retries", obj("attempts", int64(1)))}, reject: []any{absent}},
		{rule: "spec: set at least one of placement, retries, timeouts, affinity and circuitBreaker",
			accept: []any{obj("targetRefs", []any{target(1)}, "timeouts", obj("totalSeconds", int64(1)))}, reject: []any{obj("targetRefs", []any{target(1)})}},
		required("spec.targetRefs", list(1, target)),
		required(targetPath+".kind", "Resource"),
		{rule: targetPath + ".kind: enum", accept: []any{"Resource"}, reject: []any{"Service", ""}},
		{rule: targetPath + ".type: enum", accept: []any{"agent", "mcp", "modelapi", "service"}, reject: []any{"pod"}},
		{rule: targetPath + ": name goes with kind Resource, and only with it", at: "spec.targetRefs[]",
			accept: []any{target(1), obj("kind", "Namespace")}, reject: []any{obj("kind", "Resource", "type", "agent"), obj("kind", "Namespace", "name", "a")}},
		{rule: targetPath + ": kind Resource needs a type", at: "spec.targetRefs[]",
			accept: []any{target(1)}, reject: []any{obj("kind", "Resource", "name", "a")}},
		{rule: targetPath + ": kind Namespace takes no type", at: "spec.targetRefs[]",
			accept: []any{obj("kind", "Namespace")}, reject: []any{obj("kind", "Namespace", "type", "agent")}},
		{rule: targetPath + ": matchLabels goes with kind Selector, and only with it", at: "spec.targetRefs[]",
			accept: []any{selector(label(1)), obj("kind", "Selector", "type", "mcp", "matchLabels", []any{label(1)})},
			reject: []any{obj("kind", "Selector"), obj("kind", "Namespace", "matchLabels", []any{label(1)})}},
		{rule: targetPath + ".name: pattern", accept: []any{"a-1"}, reject: []any{"A", "a.b", "-a"}},
		{rule: targetPath + ".matchLabels: minItems", at: "spec.targetRefs[]", accept: []any{selector(label(1))}, reject: []any{selector()}, says: "matchLabels goes with"},
		{rule: targetPath + ".matchLabels: maxItems", at: "spec.targetRefs[]", accept: []any{selector(list(8, label)...)}, reject: []any{selector(list(9, label)...)}},
		{rule: targetPath + ".matchLabels: unique", at: "spec.targetRefs[]", accept: []any{selector(label(1), label(2))}, reject: []any{selector(label(1), label(1))}},
		{rule: targetPath + ".matchLabels[].key: required", at: "spec.targetRefs[]", accept: []any{selector(label(1))}, reject: []any{selector(obj("value", "v"))}},
		{rule: targetPath + ".matchLabels[].key: minLength", at: "spec.targetRefs[]", accept: []any{selector(obj("key", "a"))}, reject: []any{selector(obj("key", ""))}},
		{rule: targetPath + ".matchLabels[].key: maxLength", at: "spec.targetRefs[]", accept: []any{selector(obj("key", x(317)))}, reject: []any{selector(obj("key", x(318)))}},
		{rule: targetPath + ".matchLabels[].value: minLength", at: "spec.targetRefs[]", accept: []any{selector(obj("key", "a", "value", ""))}, says: "must be of type",
			reject: []any{selector(obj("key", "a", "value", int64(1)))}},
		{rule: targetPath + ".matchLabels[].value: maxLength", at: "spec.targetRefs[]", accept: []any{selector(obj("key", "a", "value", x(63)))},
			reject: []any{selector(obj("key", "a", "value", x(64)))}},

		{rule: "spec.placement: weights go with preference Weighted, and only with it",
			accept: []any{obj("preference", "Local"), obj("preference", "Weighted", "weights", []any{weight(1)})},
			reject: []any{obj("preference", "Weighted"), obj("preference", "Local", "weights", []any{weight(1)})}},
		required("spec.placement.preference", "Weighted"),
		{rule: "spec.placement.preference: enum", accept: []any{"Weighted"}, reject: []any{"Random"}},
		{rule: "spec.placement.weights: at least one weight must be above 0", accept: []any{list(2, weight)},
			reject: []any{[]any{obj("kind", "Spoke", "name", "a", "weight", int64(0)), obj("kind", "Spoke", "name", "b", "weight", int64(0))}}},
		{rule: "spec.placement.weights: unique", accept: []any{list(2, weight)}, reject: []any{[]any{weight(1), weight(1)}}},
		required(weightPath+".kind", "Region"),
		{rule: weightPath + ".kind: enum", accept: []any{"Spoke", "Region"}, reject: []any{"Zone"}},
		required(weightPath+".name", "a"),
		required(weightPath+".weight", int64(1)),
		{rule: weightPath + ".weight: minimum", at: "spec.placement.weights", accept: []any{[]any{weight(1), obj("kind", "Spoke", "name", "z", "weight", int64(0))}},
			reject: []any{[]any{weight(1), obj("kind", "Spoke", "name", "z", "weight", int64(-1))}}},
		{rule: weightPath + ".weight: maximum", accept: []any{int64(1000)}, reject: []any{int64(1001)}},
		{rule: "spec.placement.failover: minProperties", accept: []any{absent, obj("order", "Zone")}, reject: []any{obj()}},
		{rule: "spec.placement.failover.order: enum", accept: []any{"Distance", "Zone", "Region"}, reject: []any{"Name"}},
		required("spec.placement.failover.first[].kind", "Region"),
		{rule: "spec.placement.failover.first[].kind: enum", accept: []any{"Spoke", "Region"}, reject: []any{"Zone"}},
		required("spec.placement.failover.first[].name", "a"),

		{rule: "spec.retries: minProperties", accept: []any{absent, obj("attempts", int64(0))}, reject: []any{obj()}},
		{rule: "spec.retries.retryOn: unique", accept: []any{[]any{"Reset"}}, reject: []any{[]any{"Reset", "Reset"}}},
		{rule: "spec.retries.retryOn: minItems", accept: []any{absent, []any{"Reset"}}, reject: []any{[]any{}}},
		{rule: "spec.retries.retryOn: maxItems", accept: []any{[]any{"ConnectFailure", "Reset", "GatewayError"}},
			reject: []any{[]any{"ConnectFailure", "Reset", "GatewayError", "Other"}}},
		{rule: "spec.retries.retryOn[]: enum", accept: []any{"GatewayError"}, reject: []any{"5xx"}},
		{rule: "spec.timeouts: minProperties", accept: []any{absent, obj("totalSeconds", int64(1))}, reject: []any{obj()}},
		{rule: "spec.timeouts: totalSeconds must not be below firstByteSeconds",
			accept: []any{obj("totalSeconds", int64(5), "firstByteSeconds", int64(5))}, reject: []any{obj("totalSeconds", int64(4), "firstByteSeconds", int64(5))}},
		{rule: "spec.timeouts.firstByteSeconds: minimum", accept: []any{int64(1)}, reject: []any{int64(0), int64(-1)}},
		{rule: "spec.timeouts.firstByteSeconds: maximum", at: "spec.timeouts",
			accept: []any{obj("firstByteSeconds", int64(86400))}, reject: []any{obj("firstByteSeconds", int64(86401))}},
		{rule: "spec.timeouts.totalSeconds: minimum", at: "spec.timeouts", accept: []any{obj("totalSeconds", int64(1))}, reject: []any{obj("totalSeconds", int64(0))}},
		{rule: "spec.timeouts.totalSeconds: maximum", accept: []any{int64(604800)}, reject: []any{int64(604801)}},
		required("spec.affinity.kind", "Header"),
		{rule: "spec.affinity.kind: enum", accept: []any{"Cookie", "Header"}, reject: []any{"SourceIP"}},
		required("spec.affinity.name", "x-user"),
		{rule: "spec.affinity.name: pattern", accept: []any{"x-user_1"}, reject: []any{"a b", "a;b", ":path"}},
		{rule: "spec.circuitBreaker: minProperties", accept: []any{absent, obj("maxRequests", int64(1))}, reject: []any{obj()}},
		{rule: "status: minProperties", accept: []any{obj("targets", int64(0))}, reject: []any{obj()}},
		{rule: "status.targets: minimum", accept: []any{int64(0)}, reject: []any{int64(-1)}},
		{rule: "status.inForce: minimum", accept: []any{int64(0)}, reject: []any{int64(-1)}},
	},
	sized("spec.targetRefs", 16, target),
	bounded(targetPath+".name", 63),
	sized("spec.placement.weights", 32, weight),
	bounded(weightPath+".name", 63),
	sized("spec.placement.failover.first", 16, place),
	bounded("spec.placement.failover.first[].name", 63),
	within("spec.placement.minHealthyPercent", 1, 100),
	within("spec.retries.attempts", 0, 10),
	bounded("spec.affinity.name", 64),
	within("spec.circuitBreaker.maxRequests", 1, 100000),
	within("spec.circuitBreaker.maxPendingRequests", 1, 100000),
	conditionCases("status.conditions", 8),
)
