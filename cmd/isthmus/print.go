package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

// write writes an answer as it came, or as a table.
func write(w io.Writer, output string, body []byte, table func(io.Writer, []byte) error) error {
	switch output {
	case "json":
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(body), "", "  "); err != nil {
			return fmt.Errorf("the hub's answer is not JSON: %w", err)
		}
		_, err := fmt.Fprintln(w, b.String())
		return err
	case "table":
		return table(w, body)
	default:
		return fmt.Errorf("--output %q: use table or json", output)
	}
}

// rows writes lines of columns, and keeps the first error.
type rows struct {
	w   *tabwriter.Writer
	err error
}

func newRows(w io.Writer) *rows { return &rows{w: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)} }

func (r *rows) add(columns ...string) {
	if r.err == nil {
		_, r.err = fmt.Fprintln(r.w, strings.Join(columns, "\t"))
	}
}

func (r *rows) flush() error {
	if r.err != nil {
		return r.err
	}
	return r.w.Flush()
}

func printResources(w io.Writer, body []byte) error {
	var a debugapi.Resources
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	t := newRows(w)
	if len(a.Waiting) > 0 {
		t.add("# report and slices do not agree yet: " + strings.Join(a.Waiting, ", "))
	}
	t.add("NAMESPACE", "TYPE", "NAME", "PLACES", "CLUSTER", "CONFLICTS")
	for _, r := range a.Resources {
		t.add(r.Namespace, r.Type, r.Name, places(r.Places), orDash(r.Cluster), orDash(conflicts(r.Conflicts)))
	}
	return t.flush()
}

func printExplanation(w io.Writer, body []byte) error {
	var e debugapi.Explanation
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	t := newRows(w)
	t.add(e.Resource.Path + " from " + e.From + ": " + e.Answer)
	if e.PolicyWhy != "" {
		t.add("policy: " + e.PolicyWhy)
	}
	if c := conflicts(e.Resource.Conflicts); c != "" {
		t.add("conflicts: " + c + "; the properties of " + e.Resource.Decider + " are used")
	}
	if e.Resource.Error != "" {
		t.add("the served table is an older one: " + e.Resource.Error)
	}
	t.add("")
	t.add("ORDER", "SPOKE", "WHY", "USE", "ROUTERS")
	for i, s := range e.Order {
		why := s.Why
		if s.DistanceKm != nil {
			why = fmt.Sprintf("%s %.0f km", why, *s.DistanceKm)
		}
		if s.Share > 0 && s.Share < 100 {
			why = fmt.Sprintf("%s, %d %% of step %d", why, s.Share, s.Step)
		}
		t.add(fmt.Sprint(i+1), s.Spoke, why, s.Use, orDash(strings.Join(s.Routers, ",")))
	}
	t.add("")
	t.add("INPUT", "SLICES (AGE)", "REPORT", "LEASE")
	for _, in := range e.Inputs {
		var slices []string
		for _, s := range in.Slices {
			slices = append(slices, fmt.Sprintf("%s (%s)", s.Name, age(&s.AgeSeconds)))
		}
		report := age(in.ReportAgeSeconds)
		if !in.Complete {
			report += ", does not agree with the slices"
		}
		t.add(in.Spoke, orDash(strings.Join(slices, ", ")), report, in.Lease+" "+age(in.LeaseAgeSeconds))
	}
	return t.flush()
}

func places(all []debugapi.Place) string {
	var out []string
	for _, p := range all {
		var notes []string
		if !p.Ready {
			notes = append(notes, "not ready")
		}
		if p.Health != "Healthy" {
			notes = append(notes, strings.ToLower(p.Health))
		}
		if p.Held {
			notes = append(notes, "held")
		}
		if len(notes) > 0 {
			out = append(out, p.Spoke+"("+strings.Join(notes, ",")+")")
			continue
		}
		out = append(out, p.Spoke)
	}
	return strings.Join(out, " ")
}

func conflicts(all []debugapi.Conflict) string {
	var out []string
	for _, c := range all {
		out = append(out, c.Spoke+": "+strings.Join(c.Fields, ", "))
	}
	return strings.Join(out, "; ")
}

func age(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return time.Duration(*seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
