// Package lineage decides whether a store is the one that somebody has seen, or an earlier copy of it that was restored.
//
// A store counts: a mark is a number that only grows, and the line that wrote it. Whoever begins to count (a leader, with its
// term) begins a line, with an ID that nobody can guess, from the number that it finds. So the lines of a store are its history,
// and a copy that was restored and counts on has another history from there: what was counted after the copy was made is missing in
// it, for ever. A mark that was seen is therefore Missing in a store that was restored to before it, and Known in every other.
//
// The room is pure: no clients, no clocks, no randomness.
package lineage

import (
	"fmt"
	"slices"
)

// MaxLines is how many lines a store remembers, about 30 bytes each. A mark that is older than all of them is Forgotten.
const MaxLines = 1000

// Mark is a point in a store's history.
type Mark struct {
	Line   string // the ID of the line that counted
	Number uint64
}

// Line is a part of the history: who counted from which number on, this one included.
type Line struct {
	ID   string
	From uint64
}

// History of a store. The zero History has counted nothing.
type History struct {
	Lines  []Line // the oldest first
	Number uint64 // the newest mark's
}

// Verdict on a mark that somebody has seen.
type Verdict int

// Verdicts.
const (
	Known     Verdict = iota // the store has counted it
	Missing                  // the store never counted it, or no longer knows that it did: it was restored
	Forgotten                // older than all that the store remembers: nothing is said
)

// Begin is the history with a new line, whose first mark it counts.
func (h History) Begin(id string) History {
	h.Number++
	h.Lines = append(slices.Clone(h.Lines), Line{ID: id, From: h.Number})
	if extra := len(h.Lines) - MaxLines; extra > 0 {
		h.Lines = h.Lines[extra:]
	}
	return h
}

// Advance is the history with one more mark of its newest line.
func (h History) Advance() History {
	h.Number++
	return h
}

// Newest mark; false while nothing was counted.
func (h History) Newest() (Mark, bool) {
	if len(h.Lines) == 0 {
		return Mark{}, false
	}
	return Mark{Line: h.Lines[len(h.Lines)-1].ID, Number: h.Number}, true
}

// Judge says whether the store is one that has counted the mark.
func (h History) Judge(m Mark) Verdict {
	for i, l := range h.Lines {
		if l.ID != m.Line {
			continue
		}
		last := h.Number
		if i+1 < len(h.Lines) {
			last = h.Lines[i+1].From - 1
		}
		if m.Number >= l.From && m.Number <= last {
			return Known
		}
		return Missing
	}
	if len(h.Lines) == MaxLines && m.Number < h.Lines[0].From {
		return Forgotten
	}
	return Missing
}

// Validate says what cannot be a history.
func (h History) Validate() error {
	before := uint64(0)
	ids := map[string]bool{}
	for _, l := range h.Lines {
		switch {
		case l.ID == "" || ids[l.ID]:
			return fmt.Errorf("line %q is there twice, or has no name", l.ID)
		case l.From <= before || l.From > h.Number:
			return fmt.Errorf("line %q begins with %d, after %d and until %d", l.ID, l.From, before, h.Number)
		}
		before, ids[l.ID] = l.From, true
	}
	return nil
}
