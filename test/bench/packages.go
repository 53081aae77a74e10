package main

import (
	"fmt"
	"os"
	"strings"
)

// packageRow is one line of `go test -bench` that compares two things in turn (internal/delta's compare).
type packageRow struct{ name, base, value, ratio string }

// readPackages reads the output of `make bench-delta`: the lines that report ms-base, ms and x-base. A file that is not there
// has none.
func readPackages(path string) ([]packageRow, error) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("-packages: %w", err)
	}
	var out []packageRow
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		by := map[string]string{}
		for i := 2; i+1 < len(f); i += 2 {
			by[f[i+1]] = f[i]
		}
		if by["x-base"] != "" {
			name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "-")
			out = append(out, packageRow{name: name, base: by["ms-base"], value: by["ms"], ratio: by["x-base"]})
		}
	}
	return out, nil
}

// meaning of the rows, by the benchmark's name.
var meaning = map[string]string{
	"Fanout":        "one change of 10 KB to 1,000 streams, against a bare gRPC fan-out of the same bytes",
	"Held":          "one change of 10 KB to 1,000 streams with 1M resources held, against 10,000",
	"HeldByStreams": "one change of 10 KB to 2 streams that hold 1M resources, against 10,000",
}

func reportPackages(s *strings.Builder, rows []packageRow) {
	if len(rows) == 0 {
		return
	}
	s.WriteString("\n## Delta xDS server\n\n`make bench-delta`: both sides in turn in one run, medians; until every stream has acknowledged.\n\n")
	s.WriteString("| what | base ms | ms | ratio |\n|---|---|---|---|\n")
	for _, r := range rows {
		what := meaning[r.name]
		if what == "" {
			what = r.name
		}
		fmt.Fprintf(s, "| %s | %s | %s | %s |\n", what, r.base, r.value, r.ratio)
	}
}
