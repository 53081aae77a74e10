package digest

import (
	"testing"

	"pgregory.net/rapid"
)

func TestProgramsTellSetsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]{1,3}-[0-9a-f]{12}`), 1, 8, rapid.ID).Draw(t, "names")
		count, hash := Programs(names)
		if c, h := Programs(rapid.Permutation(names).Draw(t, "shuffled")); c != count || h != hash || len(h) != 16 {
			t.Fatalf("shuffled: %d %s, want %d %s", c, h, count, hash)
		}
		if c, h := Programs(names[1:]); c == count || h == hash {
			t.Fatalf("without %s: still %d %s", names[0], c, h)
		}
		other := append([]string{names[0] + "x"}, names[1:]...)
		if _, h := Programs(other); h == hash {
			t.Fatalf("%s for %s: still %s", other[0], names[0], h)
		}
	})
	if count, hash := Programs(nil); count != 0 || hash != "0000000000000000" {
		t.Errorf("Programs(nil) = %d %s", count, hash)
	}
}
