package main

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/isthmus-dev/isthmus/test/chaos/suite"
)

// TestMergeFigures: what a run did not measure stays, in the order of the trials.
func TestMergeFigures(t *testing.T) {
	earlier, err := json.Marshal([]suite.Figure{{Name: "spoke-back", Values: []float64{1}}, {Name: "leader-of-two", Values: []float64{9}}, {Name: "gone", Values: []float64{2}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := mergeFigures(earlier, []suite.Figure{{Name: "leader-of-two", Values: []float64{3, 4}}})
	if err != nil || len(got) != 2 || got[0].Name != "leader-of-two" || !slices.Equal(got[0].Values, []float64{3, 4}) ||
		got[1].Name != "spoke-back" || !slices.Equal(got[1].Values, []float64{1}) || got[1].What == "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := mergeFigures(json.RawMessage(`{"not":"a list"}`), nil); err == nil {
		t.Error("a foreign file was taken")
	}
}
