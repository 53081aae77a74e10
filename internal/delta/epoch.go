package delta

import (
	"strconv"
	"strings"
)

// Epoch is what a hub says of its store in control_plane.identifier: the UID of the store, the UIDs of earlier ones whose place an
// administrator says it has taken, and the newest mark of the store's history: "<number>.<the hub's own>", where the number grows.
type Epoch struct {
	UID        string
	Supersedes []string
	Mark       string // may be empty
	// Incomplete are the spokes, by name, that this hub does not know completely: what it lacks of them nobody has withdrawn.
	Incomplete []string
}

// String is "<uid>", "<uid>;supersedes=<uid>,<uid>", each with or without ";mark=<mark>" and ";incomplete=<name>,<name>".
func (e Epoch) String() string {
	out := e.UID
	if len(e.Supersedes) > 0 {
		out += supersedes + strings.Join(e.Supersedes, ",")
	}
	if e.Mark != "" {
		out += mark + e.Mark
	}
	return out + IncompleteSuffix(e.Incomplete)
}

// IncompleteSuffix is what Epoch.String appends for the spokes that are not known completely; empty for none.
func IncompleteSuffix(spokes []string) string {
	if len(spokes) == 0 {
		return ""
	}
	return incomplete + strings.Join(spokes, ",")
}

// ParseEpoch reads what String wrote. What it does not know it leaves out.
func ParseEpoch(identifier string) Epoch {
	uid, rest, _ := strings.Cut(identifier, ";")
	e := Epoch{UID: uid}
	for part := range strings.SplitSeq(rest, ";") {
		if list, ok := strings.CutPrefix(";"+part, supersedes); ok && list != "" {
			e.Supersedes = strings.Split(list, ",")
		}
		if m, ok := strings.CutPrefix(";"+part, mark); ok {
			e.Mark = m
		}
		if list, ok := strings.CutPrefix(";"+part, incomplete); ok && list != "" {
			e.Incomplete = strings.Split(list, ",")
		}
	}
	return e
}

// LaterMark returns the one of two marks of one epoch that was counted later: replicas of a hub may read a little late.
func LaterMark(a, b string) string {
	if number(b) >= number(a) {
		return b
	}
	return a
}

func number(mark string) uint64 {
	text, _, _ := strings.Cut(mark, ".")
	n, _ := strconv.ParseUint(text, 10, 64) // 0 if it is none: any other is later
	return n
}

const (
	supersedes = ";supersedes="
	mark       = ";mark="
	incomplete = ";incomplete="
)

// SeenField is the field of a node's metadata in which a client says which epoch and mark it has seen, as Epoch.String writes them.
const SeenField = "isthmus.dev/seen"
