package digest

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func sample() v1alpha1.AgentSliceSpec {
	timeout, value := int32(30), "ml"
	return v1alpha1.AgentSliceSpec{
		Spoke: "eu", SourceNamespace: "team",
		Resources: []v1alpha1.SliceResource{{
			Type: v1alpha1.TypeAgent, Name: "a", Protocols: []v1alpha1.Protocol{v1alpha1.ProtocolA2A},
			Readiness: v1alpha1.Ready, RequestTimeoutSeconds: &timeout, Labels: []v1alpha1.Label{{Key: "isthmus.dev/team", Value: &value}},
		}},
	}
}

// leaves calls change for each field that holds a value, however deep.
func leaves(v reflect.Value, path string, change func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, change)
		}
	case reflect.Slice:
		leaves(v.Index(0), path+"[0]", change)
	case reflect.Pointer:
		leaves(v.Elem(), path, change)
	default:
		change(path, v)
	}
}

// A field that is added to the API and forgotten here would let a hub take a stale slice for a current one.
func TestEveryFieldCounts(t *testing.T) {
	spec := sample()
	base, seen := Spec(&spec), 0
	leaves(reflect.ValueOf(&spec), "spec", func(path string, v reflect.Value) {
		seen++
		old := reflect.ValueOf(v.Interface())
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int32:
			v.SetInt(v.Int() + 1)
		default:
			t.Fatalf("%s: kind %s is new to this test", path, v.Kind())
		}
		if Spec(&spec) == base {
			t.Errorf("a change of %s does not change the hash", path)
		}
		v.Set(old)
	})
	if seen != 9 {
		t.Errorf("visited %d fields, want 9", seen)
	}
	if Spec(&spec) != base {
		t.Error("the same content hashes differently")
	}
}

func TestAbsentIsNotZero(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.SliceResource){
		"timeout":     func(r *v1alpha1.SliceResource) { r.RequestTimeoutSeconds = nil },
		"label value": func(r *v1alpha1.SliceResource) { r.Labels[0].Value = nil },
	} {
		with, without := sample(), sample()
		zero, empty := int32(0), ""
		with.Resources[0].RequestTimeoutSeconds, with.Resources[0].Labels[0].Value = &zero, &empty
		without.Resources[0].RequestTimeoutSeconds, without.Resources[0].Labels[0].Value = &zero, &empty
		change(&without.Resources[0])
		if Spec(&with) == Spec(&without) {
			t.Errorf("%s: zero and absent hash alike", name)
		}
	}
}

func TestOfNothing(t *testing.T) {
	if count, hash := Of(nil); count != 0 || hash != "0000000000000000" {
		t.Errorf("Of(nil) = %d %s", count, hash)
	}
}

func TestOrderAndHistoryDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		specs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) v1alpha1.AgentSliceSpec {
			s := sample()
			s.SourceNamespace = rapid.StringMatching(`[a-c]{1,2}`).Draw(t, "namespace")
			s.Resources[0].Name = rapid.StringMatching(`[a-c]{1,2}`).Draw(t, "name")
			return s
		}), 0, 8).Draw(t, "specs")
		count, hash := Of(specs)
		shuffled := rapid.Permutation(specs).Draw(t, "shuffled")
		if c, h := Of(shuffled); c != count || h != hash || len(h) != 16 {
			t.Fatalf("shuffled: %d %s, want %d %s", c, h, count, hash)
		}
		var sum Sum
		extra := sample()
		extra.Spoke = "gone"
		sum.Add(Spec(&extra))
		for i := range shuffled {
			sum.Add(Spec(&shuffled[i]))
		}
		sum.Remove(Spec(&extra))
		if c, h := sum.Digest(); c != count || h != hash {
			t.Fatalf("sum: %d %s, want %d %s", c, h, count, hash)
		}
	})
}
