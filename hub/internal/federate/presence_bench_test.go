package federate

import (
	"fmt"
	"testing"
)

// BenchmarkJudge is one decision on 1,000 spokes: a healthy fleet, and one that is split in two, where each spoke names
// just under half of the others.
func BenchmarkJudge(b *testing.B) {
	for _, named := range []int{0, 499} {
		signs := fleetOf(1000, start)
		for i := range 1000 {
			var names []string
			for k := range named {
				names = append(names, fmt.Sprintf("s%d", (i+k+1)%1000))
			}
			says(signs, []string{fmt.Sprintf("s%d", i)}, names...)
		}
		b.Run(fmt.Sprintf("named=%d", named), func(b *testing.B) {
			j := terms.Judge(start, Judgement{}, signs)
			for b.Loop() {
				j = terms.Judge(start, j, signs)
			}
		})
	}
}
