package delta

import "strings"

// Epoch is what a hub says of its store in control_plane.identifier: the UID of the store, and the UIDs of earlier ones whose
// place an administrator says it has taken.
type Epoch struct {
	UID        string
	Supersedes []string
}

// String is "<uid>", or "<uid>;supersedes=<uid>,<uid>".
func (e Epoch) String() string {
	if len(e.Supersedes) == 0 {
		return e.UID
	}
	return e.UID + supersedes + strings.Join(e.Supersedes, ",")
}

// ParseEpoch reads what String wrote.
func ParseEpoch(identifier string) Epoch {
	uid, list, ok := strings.Cut(identifier, supersedes)
	e := Epoch{UID: uid}
	if ok && list != "" {
		e.Supersedes = strings.Split(list, ",")
	}
	return e
}

const supersedes = ";supersedes="
