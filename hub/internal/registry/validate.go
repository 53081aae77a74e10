package registry

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// maxMessage is the longest message of a slice's status; maxName and maxType bound what is quoted from a bad slice there.
const (
	maxMessage = 1024
	maxName    = 253
	maxType    = 63
)

// Allowed says whether one of the globs admits a namespace; "*" stands for any run of characters.
func Allowed(globs []v1alpha1.NamespaceGlob, namespace string) bool {
	return slices.ContainsFunc(globs, func(g v1alpha1.NamespaceGlob) bool { return match(string(g), namespace) })
}

func match(glob, s string) bool {
	parts := strings.Split(glob, "*")
	if len(parts) == 1 {
		return glob == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// Validate sorts a slice's resources into the entries that count and those that do not, each with what to do about it. spoke
// is the owner of the namespace in which the slice lies, slice the name of the slice.
func Validate(spoke *v1alpha1.Spoke, slice string, spec *v1alpha1.AgentSliceSpec) ([]federate.Entry, []v1alpha1.SliceEntryStatus) {
	whole, why := refuseWhole(spoke, spec)
	var accepted []federate.Entry
	var rejected []v1alpha1.SliceEntryStatus
	seen := map[federate.Key]bool{}
	for i := range spec.Resources {
		r := &spec.Resources[i]
		key := federate.Key{Namespace: spec.SourceNamespace, Type: r.Type, Name: r.Name}
		reason, message := whole, why
		if reason == "" {
			reason, message = refuseEntry(r, i, seen[key])
		}
		if reason != "" {
			rejected = append(rejected, rejection(r, reason, message))
			continue
		}
		seen[key] = true
		accepted = append(accepted, federate.Entry{
			Key: key, Properties: properties(r), Spoke: spoke.Name, Ready: r.Readiness == v1alpha1.Ready, From: []string{slice},
		})
	}
	return accepted, rejected
}

func refuseWhole(spoke *v1alpha1.Spoke, spec *v1alpha1.AgentSliceSpec) (v1alpha1.SliceReason, string) {
	switch {
	case spec.Spoke != spoke.Name:
		return v1alpha1.SliceWrongSpoke, fmt.Sprintf("spec.spoke is %q, but the slice is in the namespace of spoke %q: write it into the other spoke's namespace or correct spec.spoke", clip(spec.Spoke, 64), spoke.Name)
	case len(validation.IsDNS1123Label(spec.SourceNamespace)) > 0:
		return v1alpha1.SliceInvalid, fmt.Sprintf("spec.sourceNamespace %q is not a DNS label", clip(spec.SourceNamespace, 80))
	case !Allowed(spoke.Spec.Namespaces, spec.SourceNamespace):
		return v1alpha1.SliceNamespaceNotAllowed, fmt.Sprintf("spoke %q may not export namespace %q: add it to spec.namespaces of the Spoke on the hub, or set isthmus.dev/export: \"false\" on the resource", spoke.Name, spec.SourceNamespace)
	}
	return "", ""
}

func refuseEntry(r *v1alpha1.SliceResource, index int, duplicate bool) (v1alpha1.SliceReason, string) {
	switch {
	case index >= v1alpha1.MaxSliceResources:
		return v1alpha1.SliceInvalid, fmt.Sprintf("the slice has more than %d resources: split it", v1alpha1.MaxSliceResources)
	case !slices.Contains(knownTypes, r.Type):
		return v1alpha1.SliceInvalid, fmt.Sprintf("unknown type %q: use agent, mcp, modelapi or service", clip(string(r.Type), 63))
	case len(validation.IsDNS1123Label(r.Name)) > 0:
		return v1alpha1.SliceInvalidName, "the name is not a DNS label (at most 63 of a-z, 0-9 and -, first and last not -): rename the resource"
	case duplicate:
		return v1alpha1.SliceDuplicateEntry, "the slice names this resource twice; the first entry is used: remove the others"
	case r.Readiness != v1alpha1.Ready && r.Readiness != v1alpha1.NotReady:
		return v1alpha1.SliceInvalid, fmt.Sprintf("readiness %q is neither Ready nor NotReady", clip(string(r.Readiness), 63))
	case r.RequestTimeoutSeconds != nil && (*r.RequestTimeoutSeconds < 1 || *r.RequestTimeoutSeconds > 86400):
		return v1alpha1.SliceInvalid, fmt.Sprintf("requestTimeoutSeconds %d is not between 1 and 86400", *r.RequestTimeoutSeconds)
	}
	return refuseProperties(r)
}

func refuseProperties(r *v1alpha1.SliceResource) (v1alpha1.SliceReason, string) {
	for _, p := range r.Protocols {
		if !slices.Contains(knownProtocols, p) {
			return v1alpha1.SliceInvalid, fmt.Sprintf("unknown protocol %q: use HTTP, GRPC, A2A, MCP or OpenAI", clip(string(p), 63))
		}
	}
	for _, l := range r.Labels {
		if errs := validation.IsQualifiedName(l.Key); len(errs) > 0 {
			return v1alpha1.SliceInvalid, fmt.Sprintf("label key %q: %s", clip(l.Key, 80), errs[0])
		}
		if l.Value != nil && len(validation.IsValidLabelValue(*l.Value)) > 0 {
			return v1alpha1.SliceInvalid, fmt.Sprintf("value of label %q: %s", clip(l.Key, 80), validation.IsValidLabelValue(*l.Value)[0])
		}
	}
	return "", ""
}

var (
	knownTypes     = []v1alpha1.ResourceType{v1alpha1.TypeAgent, v1alpha1.TypeMCP, v1alpha1.TypeModelAPI, v1alpha1.TypeService}
	knownProtocols = []v1alpha1.Protocol{v1alpha1.ProtocolHTTP, v1alpha1.ProtocolGRPC, v1alpha1.ProtocolA2A, v1alpha1.ProtocolMCP, v1alpha1.ProtocolOpenAI}
)

func properties(r *v1alpha1.SliceResource) federate.Properties {
	var p federate.Properties
	if len(r.Protocols) > 0 {
		p.Protocols = slices.Compact(slices.Sorted(slices.Values(r.Protocols)))
	}
	if r.RequestTimeoutSeconds != nil {
		p.TimeoutSeconds = *r.RequestTimeoutSeconds
	}
	for _, l := range r.Labels {
		var value string
		if l.Value != nil {
			value = *l.Value
		}
		p.Labels = append(p.Labels, federate.Label{Key: l.Key, Value: value})
	}
	slices.SortFunc(p.Labels, func(a, b federate.Label) int { return strings.Compare(a.Key, b.Key) })
	return p
}

func rejection(r *v1alpha1.SliceResource, reason v1alpha1.SliceReason, message string) v1alpha1.SliceEntryStatus {
	return v1alpha1.SliceEntryStatus{
		Type: orUnset(clip(string(r.Type), maxType)), Name: orUnset(clip(r.Name, maxName)), Reason: reason, Message: clip(message, maxMessage),
	}
}

// orUnset keeps a status valid for an entry that lacks what the status must name.
func orUnset(s string) string {
	if s == "" {
		return "(empty)"
	}
	return s
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}
