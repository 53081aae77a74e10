package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":                "",
		"plain":           "plain",
		"$(A)":            "1",
		"x$(A)y$(A)":      "x1y1",
		"$(B)":            "$(A)", // values are not expanded again
		"$(EMPTY)|":       "|",
		"$(MISSING)":      "$(MISSING)",
		"$$(A)":           "$(A)",
		"$$$(A)":          "$1",
		"$":               "$",
		"$(A":             "$(A",
		"$x":              "$x",
		"a$(MISSING)$(A)": "a$(MISSING)1",
	} {
		if got := expand(in, vars); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

// fixed holds objects by name; anything else is not found.
type fixed struct {
	maps    map[string]map[string]string
	secrets map[string]map[string][]byte
}

func (f fixed) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if d, ok := f.maps[name]; ok {
		return &corev1.ConfigMap{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (f fixed) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if d, ok := f.secrets[name]; ok {
		return &corev1.Secret{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func TestEnvironment(t *testing.T) {
	get := fixed{maps: map[string]map[string]string{"cm": {"k": "v", "n": "1"}}, secrets: map[string]map[string][]byte{"s": {"p": []byte("w")}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"a/b": "c"}}}
	pod.Status.PodIP = "10.64.0.2"
	c := &corev1.Container{
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}},
		EnvFrom:   []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
		Env: []corev1.EnvVar{
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "URL", Value: "http://$(IP):$(P_n)/$(HOST)"},
			{Name: "L", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['a/b']"}}},
			{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "p"}}},
			{Name: "M", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "NONE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Key: "p", Optional: ptr.To(true)}}},
		},
	}
	got, err := environment(t.Context(), get, pod, c, map[string]string{"HOST": "h"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"HOST": "h", "P_k": "v", "P_n": "1", "IP": "10.64.0.2", "URL": "http://10.64.0.2:1/h", "L": "c", "S": "w", "M": "64"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, from := range map[string]*corev1.EnvVarSource{
		"missing Secret": {SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Key: "p"}},
		"missing key":    {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "x"}},
		"unknown field":  {FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nope"}},
	} {
		if _, err := environment(t.Context(), get, pod, &corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: from}}}, map[string]string{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestVerdict(t *testing.T) {
	v := newVerdict(&corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}, false)
	for i, step := range []struct{ result, ok, reached bool }{
		{true, false, false}, {true, true, true}, {true, true, false}, // the second success counts, once
		{false, true, false}, {false, true, false}, {true, true, false}, // two failures do not
		{false, true, false}, {false, true, false}, {false, false, true}, {false, false, false}, // three do, once
		{true, false, false}, {true, true, true},
	} {
		if ok, reached := v.add(step.result); ok != step.ok || reached != step.reached {
			t.Fatalf("step %d: got %v %v, want %v %v", i, ok, reached, step.ok, step.reached)
		}
	}
}

func TestIdentity(t *testing.T) {
	pod := &corev1.Pod{}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), FSGroup: ptr.To(int64(7)), RunAsGroup: ptr.To(int64(5))}
	for name, tc := range map[string]struct {
		c    *corev1.SecurityContext
		want ids
	}{
		"of the pod":       {nil, ids{uid: unprivilegedUser, gid: 5, groups: []int{7}}},
		"of the container": {&corev1.SecurityContext{RunAsUser: ptr.To(int64(101)), ReadOnlyRootFilesystem: ptr.To(true)}, ids{uid: 101, gid: 5, groups: []int{7}, readOnly: true}},
		"root allowed":     {&corev1.SecurityContext{RunAsNonRoot: ptr.To(false), RunAsGroup: ptr.To(int64(0))}, ids{groups: []int{7}}},
	} {
		got := identityOf(pod, &corev1.Container{SecurityContext: tc.c})
		if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(ids{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestWriteAtomic(t *testing.T) {
	dir := t.TempDir()
	step := func(files map[string]string) (data string) {
		t.Helper()
		in := map[string]file{}
		for k, v := range files {
			in[k] = file{body: []byte(v), mode: 0o640, uid: -1}
		}
		if err := writeAtomic(dir, in, -1); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, pattern := range []string{"*", "*/*"} {
			paths, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, p := range paths {
				if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && filepath.Base(filepath.Dir(p))[0] != '.' {
					b, _ := os.ReadFile(p)
					name, _ := filepath.Rel(dir, p)
					got[name] = string(b)
				}
			}
		}
		if d := cmp.Diff(files, got); d != "" {
			t.Fatal(d)
		}
		data, _ = os.Readlink(filepath.Join(dir, "..data"))
		return data
	}
	first := step(map[string]string{"a": "1", "sub/b": "2"})
	if again := step(map[string]string{"a": "1", "sub/b": "2"}); again != first {
		t.Error("the same content was written again")
	}
	if changed := step(map[string]string{"a": "2", "c": "3"}); changed == first {
		t.Error("a change did not swap the link")
	}
	if err := writeAtomic(dir, map[string]file{"../out": {}}, -1); err == nil {
		t.Error("a path that leaves the volume was accepted")
	}
}

func TestPodStatus(t *testing.T) {
	pod := &corev1.Pod{}
	spec := &corev1.Container{Name: "c"}
	t0, t1 := metav1.Unix(100, 0), metav1.Unix(200, 0)
	ended := func(code int) *proc.State { return &proc.State{Phase: proc.Ended, LastCode: code, LastEnd: t0.Time} }
	waiting := &proc.State{Phase: proc.Waiting, Restarts: 3, Started: t0.Time, LastEnd: t0.Time, LastCode: 1}
	for name, tc := range map[string]struct {
		o     observed
		phase corev1.PodPhase
		ready corev1.ConditionStatus
	}{
		"not started": {observed{spec: spec}, corev1.PodPending, corev1.ConditionFalse},
		"crash loop":  {observed{spec: spec, state: waiting}, corev1.PodRunning, corev1.ConditionFalse},
		"completed":   {observed{spec: spec, state: ended(0)}, corev1.PodSucceeded, corev1.ConditionFalse},
		"failed":      {observed{spec: spec, state: ended(2)}, corev1.PodFailed, corev1.ConditionFalse},
	} {
		s := podStatus(pod, corev1.PodStatus{}, "10.64.0.2", "10.64.0.1", nil, []observed{tc.o}, t1)
		if s.Phase != tc.phase || condition(s, corev1.PodReady).Status != tc.ready {
			t.Errorf("%s: phase %s, ready %s", name, s.Phase, condition(s, corev1.PodReady).Status)
		}
	}
	// The time of a condition is that of its change.
	first := podStatus(pod, corev1.PodStatus{}, "10.64.0.2", "10.64.0.1", nil, []observed{{spec: spec}}, t0)
	second := podStatus(pod, first, "10.64.0.2", "10.64.0.1", nil, []observed{{spec: spec}}, t1)
	if got := condition(second, corev1.PodReady).LastTransitionTime; !got.Equal(&t0) {
		t.Errorf("a condition that did not change moved to %s", got)
	}
}

func condition(s corev1.PodStatus, t corev1.PodConditionType) corev1.PodCondition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.PodCondition{}
}

func TestRefreshAfter(t *testing.T) {
	pod := &corev1.Pod{}
	if got := refreshAfter(pod); got != 0 {
		t.Errorf("without tokens: %s", got)
	}
	pod.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To(int64(7200))}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To(int64(1000))}},
	}}}}}
	if got, want := refreshAfter(pod), 800*time.Second; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestALateEndOfAnEarlierLifeCountsNothing: the end of a killed process is noticed after its successor has started.
func TestALateEndOfAnEarlierLifeCountsNothing(t *testing.T) {
	c := &container{w: &worker{changed: make(chan struct{}, 1)}}
	first := c.begin()
	c.set(first, true, true)
	second := c.begin()
	c.set(second, true, true)
	c.set(first, false, false)
	if started, ready := c.probed(); !started || !ready {
		t.Errorf("started %v, ready %v: the first life's end took the second's readiness", started, ready)
	}
}
