package suite

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Markers between which the reports stand in a page.
const (
	Begin        = "<!-- chaos: begin -->"
	End          = "<!-- chaos: end -->"
	FiguresBegin = "<!-- figures: begin -->"
	FiguresEnd   = "<!-- figures: end -->"
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

// FigureTable renders figures for docs/resilience.md.
func FigureTable(figures []Figure) string {
	var b strings.Builder
	b.WriteString("| figure | name | rounds | median | range | wanted |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, f := range figures {
		median, least, most := f.Middle()
		show := func(v float64) string {
			if f.Unit == unitSeconds {
				return fmt.Sprintf("%.2f s", v)
			}
			return fmt.Sprintf("%.0f", v)
		}
		wanted := "-"
		if f.Wanted != "" {
			wanted = f.Wanted
		}
		fmt.Fprintf(&b, "| %s | `%s` | %d | %s | %s to %s | %s |\n", f.What, f.Name, len(f.Values), show(median), show(least), show(most), wanted)
	}
	return b.String()
}

// SpliceFigures puts the report on figures between its own.
func SpliceFigures(page, report string) (string, error) {
	return splice(page, report, FiguresBegin, FiguresEnd)
}

func splice(page, report, begin, end string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return "", fmt.Errorf("the page has no %s and %s after it", begin, end)
	}
	return before + begin + "\n" + report + end + after, nil
}

// Splice puts rows between the markers of a page, in the order of Scenarios: rows that stand there and are not measured anew stay as
// they are, and so does what is said above the table, unless note is not empty.
func Splice(page, note string, rows []Row) (string, error) {
	before, rest, ok := strings.Cut(page, Begin)
	old, after, found := strings.Cut(rest, End)
	if !ok || !found {
		return "", fmt.Errorf("the page has no %s and %s after it", Begin, End)
	}
	said, standing := parse(old)
	if note != "" {
		said = note
	}
	fresh := strings.Split(strings.TrimSpace(Table(rows)), "\n")
	for i, r := range rows {
		standing[r.Scenario] = fresh[i+2]
	}
	lines := fresh[:2:2]
	for _, s := range Scenarios() {
		if line, ok := standing[s.Name]; ok {
			lines = append(lines, line)
		}
	}
	return before + Begin + "\n" + strings.TrimSpace(said) + "\n\n" + strings.Join(lines, "\n") + "\n" + End + after, nil
}

// parse takes a report apart: what is said above its table, and the table's rows by scenario.
func parse(report string) (said string, rows map[string]string) {
	rows = map[string]string{}
	for line := range strings.Lines(report) {
		cells := strings.Split(line, "|")
		switch {
		case len(cells) < 2:
			if len(rows) == 0 {
				said += line
			}
		case len(cells) > 3 && strings.HasPrefix(strings.TrimSpace(cells[2]), "`"):
			rows[strings.Trim(strings.TrimSpace(cells[2]), "`")] = strings.TrimSpace(line)
		}
	}
	return said, rows
}

// Merge puts fresh rows in the place of those of the same scenarios, in the order of Scenarios.
func Merge(old, fresh []Row) []Row {
	by := map[string]Row{}
	for _, r := range slices.Concat(old, fresh) {
		by[r.Scenario] = r
	}
	var out []Row
	for _, s := range Scenarios() {
		if r, ok := by[s.Name]; ok {
			out = append(out, r)
		}
	}
	return out
}
