package source

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Kind is a kind of objects that declare resources: one resource each, of the object's own namespace and name.
type Kind struct {
	// Type of the resources. No two Kinds of a Set have the same.
	Type v1alpha1.ResourceType
	// Group and Plural name the CRD (<plural>.<group>), which may be absent; Versions are tried in turn.
	Group, Plural string
	Versions      []string
	// Parse turns an object into a Resource: Service, Port, Protocols and RequestTimeoutSeconds; the Set fills in the
	// rest. False: the object asks not to be called from elsewhere. An error says what in the object is wrong.
	Parse func(*unstructured.Unstructured) (Resource, bool, error)
	// Complete adds what is known only from the backing Service; service is nil when there is none. An error keeps the
	// resource at home. Optional.
	Complete func(r Resource, service *Service) (Resource, error)
}

func (k *Kind) crd() string { return k.Plural + "." + k.Group }

// declaration is what is kept of an object.
type declaration struct {
	Resource
	exported bool
	err      error // what is wrong with the object
}

func (d declaration) equal(o declaration) bool {
	return d.exported == o.exported && fmt.Sprint(d.err) == fmt.Sprint(o.err) && d.Resource.Equal(o.Resource)
}

// read takes from an object what is needed of it.
func (k *Kind) read(u *unstructured.Unstructured) declaration {
	d := declaration{}
	if !OptedOut(u) {
		d.Resource, d.exported, d.err = k.Parse(u)
	}
	if !d.exported || d.err != nil {
		d.Resource, d.exported = Resource{}, false
	}
	d.Namespace, d.Type, d.Name = u.GetNamespace(), k.Type, u.GetName()
	if d.exported {
		slices.Sort(d.Protocols)
		d.Labels, d.Created = policyLabels(u), u.GetCreationTimestamp().Time
	}
	return d
}

const (
	// ExportLabelsKey is an annotation: the keys, separated by commas, of those labels of the object that policies in the
	// whole fleet may select by.
	ExportLabelsKey = "isthmus.dev/export-labels"
	ownDomain       = "isthmus.dev"
	maxLabels       = 16
)

// policyLabels are the labels that travel: those of a key in isthmus.dev or a domain below it, and those that the object
// names in ExportLabelsKey. Anything else (hashes, versions of charts) would cause conflicts between clusters and traffic
// on the wire that decides nothing.
func policyLabels(o metav1.Object) []v1alpha1.Label {
	named := strings.Split(o.GetAnnotations()[ExportLabelsKey], ",")
	for i := range named {
		named[i] = strings.TrimSpace(named[i])
	}
	var out []v1alpha1.Label
	for key, value := range o.GetLabels() {
		domain, _, prefixed := strings.Cut(key, "/")
		own := prefixed && (domain == ownDomain || strings.HasSuffix(domain, "."+ownDomain)) && key != ExportKey
		if own || slices.Contains(named, key) {
			out = append(out, v1alpha1.Label{Key: key, Value: &value})
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.Label) int { return strings.Compare(a.Key, b.Key) })
	return out[:min(len(out), maxLabels)]
}
