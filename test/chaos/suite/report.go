package suite

import (
	"fmt"
	"strings"
	"time"
)

// Markers between which a report stands in a page.
const (
	Begin = "<!-- chaos: begin -->"
	End   = "<!-- chaos: end -->"
)

// Table renders rows for docs/resilience.md.
func Table(rows []Row) string {
	what := map[string]string{}
	for _, s := range Scenarios() {
		what[s.Name] = s.Fault
	}
	var b strings.Builder
	b.WriteString("| fault | name | rounds | failed GET | failed POST | POST twice | last error | recovery | streams reset | elsewhere |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		elsewhere := fmt.Sprintf("%d failed, %d reset", r.FailedBystanders, r.OtherStreamsReset)
		if r.FailedBystanders+r.OtherStreamsReset == 0 {
			elsewhere = "0"
		}
		if r.Withdrawn > 0 {
			elsewhere += fmt.Sprintf(", %d withdrawn", r.Withdrawn)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %d | %d of %d | %d of %d | %d | %s | %s | %d of %d | %s |\n", what[r.Scenario], r.Scenario, r.Rounds, r.FailedGETs, r.GETs,
			r.FailedPOSTs, r.POSTs, r.Duplicated, seconds(r.LastError), seconds(r.Recovery), r.StreamsReset, r.Streams/2, elsewhere)
	}
	return b.String()
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// Splice puts a report between the markers of a page.
func Splice(page, report string) (string, error) {
	before, rest, ok := strings.Cut(page, Begin)
	_, after, found := strings.Cut(rest, End)
	if !ok || !found {
		return "", fmt.Errorf("the page has no %s and %s after it", Begin, End)
	}
	return before + Begin + "\n" + report + End + after, nil
}
