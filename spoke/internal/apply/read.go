package apply

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// What implementations write is read with care: a status of another shape is none.

// conditionsOf reads the field conditions of an object that may have one.
func conditionsOf(in any) []metav1.Condition {
	m, _ := in.(map[string]any)
	var out []metav1.Condition
	for _, c := range objectsOf(m["conditions"], 0) {
		var cond metav1.Condition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(c, &cond); err != nil || cond.Type == "" || cond.Status == "" || cond.Reason == "" {
			continue
		}
		if cond.LastTransitionTime.IsZero() {
			continue
		}
		out = append(out, cond)
	}
	return out
}

// objectsOf reads a list of objects, at most limit of them (0: all).
func objectsOf(in any, limit int) []map[string]any {
	list, _ := in.([]any)
	var out []map[string]any
	for _, v := range list {
		if m, ok := v.(map[string]any); ok && (limit == 0 || len(out) < limit) {
			out = append(out, m)
		}
	}
	return out
}

func text(in any) string {
	s, _ := in.(string)
	return s
}

func first[T any](in []T, n int) []T { return in[:min(len(in), n)] }
