package engine

import (
	"testing"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// What looks undeclared while a spoke is half read may be that spoke's; nothing is told to be missing on such ground.
func TestDeclaredIsSureOfWhatIsMissing(t *testing.T) {
	one := agentSlice("us", "one", 1, agent("a"))
	f := startHalfRead(t, one)
	eventually := func(name string, want bool) {
		t.Helper()
		for {
			changed := f.engine.Changes()
			if f.engine.Declared("ns", v1alpha1.TypeAgent, name) == want {
				return
			}
			select {
			case <-changed:
			case <-t.Context().Done():
				t.Fatalf("Declared(%s) is %t", name, !want)
			}
		}
	}
	eventually("gone", true)
	f.registry.SetReport(reportOf("us", "s1", one))
	eventually("gone", false)
	eventually("a", true)
	if f.engine.Declared("ns", v1alpha1.TypeMCP, "a") || f.engine.Declared("other", v1alpha1.TypeAgent, "a") {
		t.Error("a resource of another type or namespace is taken for it")
	}
	// A new session is half read at first, and what was known stays known: nothing becomes unsure again.
	f.registry.SetSlice(agentSlice("us", "one", 2, agent("b")))
	f.registry.SetReport(reportOf("us", "s2", one))
	eventually("b", true)
	if f.engine.Declared("ns", v1alpha1.TypeAgent, "gone") {
		t.Error("a new session makes the hub unsure of what is missing")
	}
}
