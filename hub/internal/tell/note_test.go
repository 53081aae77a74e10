package tell

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNote(t *testing.T) {
	for name, s := range map[string]string{
		"short": "two spokes disagree", "exactly as long as may be": strings.Repeat("x", maxNote),
		"long": strings.Repeat("x", maxNote+1), "long, of two bytes each": strings.Repeat("ü", maxNote), "long, odd": "x" + strings.Repeat("ü", maxNote),
	} {
		t.Run(name, func(t *testing.T) {
			got := Note(s)
			if len(got) > maxNote || !utf8.ValidString(got) {
				t.Errorf("%d bytes, valid: %t", len(got), utf8.ValidString(got))
			}
			if len(s) <= maxNote && got != s {
				t.Error("a note that fits was changed")
			}
			if len(s) > maxNote && (!strings.HasSuffix(got, "...") || len(got) < maxNote-5) {
				t.Errorf("cut to %d bytes, ends %q", len(got), got[len(got)-5:])
			}
		})
	}
}
