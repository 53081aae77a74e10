package digest

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Of counts slices and hashes their contents: 16 hexadecimal digits, the same in whatever order the slices come. Names
// and metadata of the slices do not count, the order of the resources in a slice does.
func Of(specs []v1alpha1.AgentSliceSpec) (count int32, hash string) {
	var s Sum
	for i := range specs {
		s.Add(Spec(&specs[i]))
	}
	return s.Digest()
}

// Sum is the digest of a set of slices that changes: each change costs O(1). The zero value is the empty set.
type Sum struct {
	count int32
	sum   uint64
}

// Add takes a slice, by its Spec hash, into the set.
func (s *Sum) Add(spec uint64) { s.count++; s.sum += spec }

// Remove takes a slice that was added out of the set.
func (s *Sum) Remove(spec uint64) { s.count--; s.sum -= spec }

// Digest returns what Of returns for the same slices.
func (s *Sum) Digest() (count int32, hash string) { return s.count, fmt.Sprintf("%016x", s.sum) }

// Spec hashes one slice. What the API server treats alike (a nil and an empty list) hashes alike.
func Spec(spec *v1alpha1.AgentSliceSpec) uint64 {
	var e encoder
	e.Reset()
	e.text(spec.Spoke)
	e.text(spec.SourceNamespace)
	e.number(len(spec.Resources))
	for i := range spec.Resources {
		e.resource(&spec.Resources[i])
	}
	return e.Sum64()
}

// encoder writes fields with their lengths, so that no two different slices give the same bytes.
type encoder struct{ xxhash.Digest }

func (e *encoder) resource(r *v1alpha1.SliceResource) {
	e.text(string(r.Type))
	e.text(r.Name)
	e.number(len(r.Protocols))
	for _, p := range r.Protocols {
		e.text(string(p))
	}
	e.text(string(r.Readiness))
	if r.RequestTimeoutSeconds == nil {
		e.number(-1)
	} else {
		e.number(int(*r.RequestTimeoutSeconds))
	}
	e.number(len(r.Labels))
	for _, l := range r.Labels {
		e.text(l.Key)
		if l.Value == nil {
			e.number(-1)
		} else {
			e.text(*l.Value)
		}
	}
}

func (e *encoder) text(s string) {
	e.number(len(s))
	_, _ = e.WriteString(s) // never fails
}

func (e *encoder) number(n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(int64(n)))
	_, _ = e.Write(b[:]) // never fails
}
