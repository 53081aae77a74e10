package lineage

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	h := History{}.Begin("a").Advance().Advance().Begin("b").Advance() // a: 1-3, b: 4-5
	for _, c := range []struct {
		m    Mark
		want Verdict
	}{
		{Mark{"a", 1}, Known}, {Mark{"a", 3}, Known}, {Mark{"b", 4}, Known}, {Mark{"b", 5}, Known},
		{Mark{"a", 4}, Missing}, // a went on elsewhere
		{Mark{"b", 6}, Missing}, // the store is behind
		{Mark{"c", 2}, Missing}, // a line of another history
		{Mark{"b", 3}, Missing},
	} {
		if got := h.Judge(c.m); got != c.want {
			t.Errorf("%v is %v, want %v", c.m, got, c.want)
		}
	}
	if _, ok := (History{}).Newest(); ok {
		t.Error("a store that has counted nothing has a mark")
	}
	if got := (History{}).Judge(Mark{"a", 1}); got != Missing {
		t.Errorf("an empty store knows a mark: %v", got)
	}
}

func TestOldLinesAreForgottenNotMissing(t *testing.T) {
	var h History
	for i := range MaxLines + 3 {
		h = h.Begin(fmt.Sprint(i))
	}
	if len(h.Lines) != MaxLines || h.Validate() != nil {
		t.Fatalf("%d lines, %v", len(h.Lines), h.Validate())
	}
	for _, c := range []struct {
		m    Mark
		want Verdict
	}{{Mark{"0", 1}, Forgotten}, {Mark{"3", 4}, Known}, {Mark{"x", 4}, Missing}, {Mark{"x", 3}, Forgotten}} {
		if got := h.Judge(c.m); got != c.want {
			t.Errorf("%v is %v, want %v", c.m, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, h := range map[string]History{
		"twice":     {Lines: []Line{{"a", 1}, {"a", 2}}, Number: 2},
		"no name":   {Lines: []Line{{"", 1}}, Number: 1},
		"backwards": {Lines: []Line{{"a", 2}, {"b", 2}}, Number: 2},
		"beyond":    {Lines: []Line{{"a", 3}}, Number: 2},
		"from zero": {Lines: []Line{{"a", 0}}, Number: 2},
	} {
		if h.Validate() == nil {
			t.Errorf("%s: a history", name)
		}
	}
}

// A store lives: leaders come and go and count, backups are made and restored. Of all marks that anybody ever counted exactly those
// are known that this very store, as it is, has counted.
func TestExactlyWhatWasLostIsMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type copied struct {
			h       History
			counted map[Mark]bool // what History must know without keeping it
		}
		now := copied{counted: map[Mark]bool{}}
		var backups []copied
		ever := map[Mark]bool{}
		lines := 0
		count := func(h History) {
			now.h = h
			m, ok := h.Newest()
			if !ok {
				t.Fatal("nothing was counted")
			}
			now.counted[m], ever[m] = true, true
		}
		begin := func(*rapid.T) {
			lines++
			count(now.h.Begin(fmt.Sprint(lines)))
		}
		t.Repeat(map[string]func(*rapid.T){
			"leader": begin,
			"count": func(t *rapid.T) {
				if len(now.h.Lines) == 0 {
					t.Skip("nobody leads")
				}
				count(now.h.Advance())
			},
			"backup": func(*rapid.T) { backups = append(backups, copied{now.h, maps.Clone(now.counted)}) },
			"restore": func(t *rapid.T) {
				if len(backups) == 0 {
					t.Skip("no backup")
				}
				b := rapid.SampledFrom(backups).Draw(t, "which")
				now = copied{b.h, maps.Clone(b.counted)}
				begin(t) // nobody counts on in a line of before
			},
			"": func(t *rapid.T) {
				if err := now.h.Validate(); err != nil {
					t.Fatal(err)
				}
				for m := range ever {
					want := map[bool]Verdict{true: Known, false: Missing}[now.counted[m]]
					if got := now.h.Judge(m); got != want {
						t.Fatalf("%v is %v in %v, want %v", m, got, now.h, want)
					}
				}
			},
		})
	})
}
