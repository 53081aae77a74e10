package program

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Hashes remembers from one compilation to the next what a spec hashes to: most say what they said before, and reading a
// manifest only to write it in order is most of the work. The zero value is ready; it is not safe for concurrent use.
type Hashes struct{ last, now map[[sha256.Size]byte]string }

// next begins a compilation: what the last one did not use is forgotten.
func (h *Hashes) next() {
	h.last, h.now = h.now, map[[sha256.Size]byte]string{}
}

// of is Hash of the spec.
func (h *Hashes) of(spec *v1alpha1.GatewayProgramSpec) string {
	head := *spec // all fields, those that are still to come too
	head.Objects = nil
	raw, err := json.Marshal(head)
	if err != nil {
		return "" // texts and numbers always marshal
	}
	d := sha256.New()
	_, _ = d.Write(raw) // never fails
	for _, o := range spec.Objects {
		_, _ = fmt.Fprintf(d, " %d ", len(o.Manifest.Raw))
		_, _ = d.Write(o.Manifest.Raw)
	}
	key := [sha256.Size]byte(d.Sum(nil))
	hash, ok := h.last[key]
	if !ok {
		hash = Hash(spec)
	}
	h.now[key] = hash
	return hash
}

func (c *compiler) newProgram(spec v1alpha1.GatewayProgramSpec) *Program {
	return &Program{Spec: spec, Hash: c.in.Hashes.of(&spec)}
}
