package cel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// rulesOf lists the rules of a CRD as "path: constraint", items of a list as "path[]".
func rulesOf(crd *apiextensionsv1.CustomResourceDefinition) []string {
	var rules []string
	for _, v := range crd.Spec.Versions {
		rules = appendRules(rules, "", v.Schema.OpenAPIV3Schema)
	}
	return rules
}

func appendRules(rules []string, path string, s *apiextensionsv1.JSONSchemaProps) []string {
	add := func(constraint string) { rules = append(rules, path+": "+constraint) }
	bounds := map[string]bool{
		"pattern": s.Pattern != "", "enum": len(s.Enum) > 0,
		"minLength": s.MinLength != nil, "maxLength": s.MaxLength != nil,
		"minimum": s.Minimum != nil, "maximum": s.Maximum != nil,
		"minItems": s.MinItems != nil, "maxItems": s.MaxItems != nil,
		"minProperties": s.MinProperties != nil,
		"unique":        s.XListType != nil && *s.XListType != "atomic",
	}
	for name, set := range bounds {
		if set {
			add(name)
		}
	}
	for _, v := range s.XValidations {
		add(v.Message)
	}
	if strings.HasSuffix(path, "conditions") { // the rest is metav1.Condition's
		return rules
	}
	for _, name := range s.Required {
		rules = append(rules, join(path, name)+": required")
	}
	for name, p := range s.Properties {
		if path == "" && (name == "metadata" || name == "kind" || name == "apiVersion") {
			continue
		}
		rules = appendRules(rules, join(path, name), &p)
	}
	if s.Items != nil && s.Items.Schema != nil {
		rules = appendRules(rules, path+"[]", s.Items.Schema)
	}
	return rules
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// TestEveryRuleHasACase compares the rules of the CRDs with the cases, both ways.
func TestEveryRuleHasACase(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(kubetest.HubCRDs(), "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s: %v", kubetest.HubCRDs(), err)
	}
	rules := map[string][]string{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(raw, &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		rules[crd.Spec.Names.Kind] = rulesOf(&crd)
	}
	for kind, want := range rules {
		var have []string
		for _, c := range cases[kind] {
			have = append(have, c.rule)
		}
		for _, r := range want {
			if !slices.Contains(have, r) {
				t.Errorf("%s: the rule %q has no case", kind, r)
			}
		}
		for _, r := range have {
			if !slices.Contains(want, r) {
				t.Errorf("%s: the case %q has no rule in the CRD", kind, r)
			}
		}
	}
	for kind := range cases {
		if rules[kind] == nil {
			t.Errorf("cases of %s, of which there is no CRD", kind)
		}
	}
}
