package delta

import (
	"reflect"
	"testing"
)

func TestEpoch(t *testing.T) {
	for text, want := range map[string]Epoch{
		"":                   {},
		"a":                  {UID: "a"},
		"a;supersedes=b":     {UID: "a", Supersedes: []string{"b"}},
		"a;supersedes=b,c-d": {UID: "a", Supersedes: []string{"b", "c-d"}},
	} {
		got := ParseEpoch(text)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, want %+v", text, got, want)
		}
		if got.String() != text {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
	if got := ParseEpoch("a;supersedes="); got.UID != "a" || got.Supersedes != nil {
		t.Errorf("an empty list is %+v", got)
	}
}
