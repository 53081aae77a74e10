package kubelet

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// objects reads what pods refer to.
type objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// expand replaces $(NAME) by its value; what is not defined stays as it is, and $$ stands for one $.
func expand(s string, vars map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[1] == '$':
			b.WriteByte('$')
			s = s[2:]
		case s[1] == '(' && end > 0:
			if v, ok := vars[s[2:end]]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[:end+1])
			}
			s = s[end+1:]
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}

func expandAll(in []string, vars map[string]string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = expand(s, vars)
	}
	return out
}

// environment computes a container's variables; base holds what every container of the pod gets.
func environment(ctx context.Context, get objects, pod *corev1.Pod, c *corev1.Container, base map[string]string) (map[string]string, error) {
	vars := maps.Clone(base)
	for _, from := range c.EnvFrom {
		found, err := envFrom(ctx, get, pod.Namespace, from)
		if err != nil {
			return nil, err
		}
		for k, v := range found {
			vars[from.Prefix+k] = v
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			vars[e.Name] = expand(e.Value, vars)
			continue
		}
		v, ok, err := envValue(ctx, get, pod, c, e.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if ok {
			vars[e.Name] = v
		}
	}
	return vars, nil
}

func envFrom(ctx context.Context, get objects, ns string, from corev1.EnvFromSource) (map[string]string, error) {
	out := map[string]string{}
	if r := from.ConfigMapRef; r != nil {
		cm, err := get.ConfigMap(ctx, ns, r.Name)
		if err != nil {
			return out, optional(err, r.Optional)
		}
		maps.Copy(out, cm.Data)
	}
	if r := from.SecretRef; r != nil {
		s, err := get.Secret(ctx, ns, r.Name)
		if err != nil {
			return out, optional(err, r.Optional)
		}
		for k, v := range s.Data {
			out[k] = string(v)
		}
	}
	return out, nil
}

// optional turns a missing object into none where the reference says so.
func optional(err error, isOptional *bool) error {
	if isOptional != nil && *isOptional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func envValue(ctx context.Context, get objects, pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		v, err := field(pod, from.FieldRef.FieldPath)
		return v, err == nil, err
	case from.ResourceFieldRef != nil:
		v, err := resourceField(c, from.ResourceFieldRef)
		return v, err == nil, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		cm, err := get.ConfigMap(ctx, pod.Namespace, r.Name)
		if err != nil {
			return "", false, optional(err, r.Optional)
		}
		v, ok := cm.Data[r.Key]
		return v, ok, missingKey(ok, r.Optional, "ConfigMap", r.Name, r.Key)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		s, err := get.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			return "", false, optional(err, r.Optional)
		}
		v, ok := s.Data[r.Key]
		return string(v), ok, missingKey(ok, r.Optional, "Secret", r.Name, r.Key)
	}
	return "", false, fmt.Errorf("this kind of valueFrom is not supported by the lab")
}

func missingKey(ok bool, isOptional *bool, kind, name, key string) error {
	if ok || (isOptional != nil && *isOptional) {
		return nil
	}
	return fmt.Errorf("couldn't find key %q in %s %q", key, kind, name)
}

// field reads a pod's field by the paths that the downward API allows.
func field(pod *corev1.Pod, path string) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return pod.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return pod.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return mapText(pod.Labels), nil
	case "metadata.annotations":
		return mapText(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	}
	return "", fmt.Errorf("field %q is not supported by the downward API", path)
}

func subscript(path, of string) (string, bool) {
	rest, ok := strings.CutPrefix(path, of+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

func mapText(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}

// nodeCapacity is what a limit that is not set reads as.
var nodeCapacity = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
}

func resourceField(c *corev1.Container, r *corev1.ResourceFieldSelector) (string, error) {
	kind, name, ok := strings.Cut(r.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	if !ok || (kind != "limits" && kind != "requests") {
		return "", fmt.Errorf("resource %q is not supported by the downward API", r.Resource)
	}
	q, set := list[corev1.ResourceName(name)]
	if !set && kind == "limits" {
		q = nodeCapacity[corev1.ResourceName(name)]
	}
	divisor := r.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	return fmt.Sprint(int64(math.Ceil(q.AsApproximateFloat64() / divisor.AsApproximateFloat64()))), nil
}
