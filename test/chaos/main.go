// Command chaos breaks a lab in every way that test/chaos/suite knows, under load, and writes what each fault cost:
// JSON, and the table of docs/resilience.md. `make chaos` starts the lab and runs it there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-dev/isthmus/test/chaos/suite"
)

type options struct {
	env, lab, root, json, page, only string
	rounds, others                   int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{}
	flag.StringVar(&o.env, "env", os.Getenv("ISTHMUS_ENV"), "output of `bin/lab env --json`")
	flag.StringVar(&o.lab, "lab", os.Getenv("ISTHMUS_LAB"), "name of the lab")
	flag.StringVar(&o.root, "root", ".", "the checkout")
	flag.StringVar(&o.json, "out", "bin/results/chaos.json", "JSON file")
	flag.StringVar(&o.page, "page", "", "page that takes the table, such as docs/resilience.md")
	flag.StringVar(&o.only, "only", "", "names of scenarios, by comma (default all)")
	flag.IntVar(&o.rounds, "rounds", 1, "rounds of each scenario; the table has the medians")
	flag.IntVar(&o.others, "other-rounds", 0, "rounds of the scenarios whose costs are not promised (default: as -rounds)")
	flag.Parse()
	if o.others == 0 {
		o.others = o.rounds
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	if o.rounds < 1 || o.rounds > 99 || o.others < 1 || o.others > 99 {
		return fmt.Errorf("-rounds %d -other-rounds %d: use 1 to 99", o.rounds, o.others)
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	f, err := suite.Load(o.env, o.lab, root)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	u, err := suite.New(ctx, f, func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err != nil {
		return err
	}
	defer u.Close()
	rows, broken := measure(ctx, u, chosen, o)
	return errors.Join(write(o, rows), broken)
}

// measure runs every chosen scenario; one that fails does not keep the next from running.
func measure(ctx context.Context, u *suite.Suite, chosen []suite.Scenario, o options) ([]suite.Row, error) {
	var rows []suite.Row
	var broken []error
	for _, sc := range chosen {
		var own []suite.Row
		rounds := o.others
		if sc.Figure {
			rounds = o.rounds
		}
		for range rounds {
			if ctx.Err() != nil {
				return rows, ctx.Err()
			}
			r, err := u.Run(ctx, sc)
			if err != nil {
				broken = append(broken, err)
				fmt.Printf("%-22s %v\n", sc.Name, err)
				if r.GETs == 0 {
					continue
				}
			}
			own = append(own, r)
			for _, b := range sc.Broken(r) {
				broken = append(broken, fmt.Errorf("%s: %s (%s)", sc.Name, b, r.Example))
			}
			fmt.Printf("%-22s GET %d/%d POST %d/%d twice %d last error %s recovery %s streams %d+%d of %d bystanders %d attempts %.2f %s\n", sc.Name, r.FailedGETs, r.GETs,
				r.FailedPOSTs, r.POSTs, r.Duplicated, r.LastError.Round(time.Millisecond), r.Recovery.Round(time.Millisecond), r.StreamsReset, r.OtherStreamsReset,
				r.Streams, r.FailedBystanders, r.Attempts, r.Example)
		}
		if len(own) > 0 {
			rows = append(rows, suite.Median(own))
		}
	}
	return rows, errors.Join(broken...)
}

func choose(only string) ([]suite.Scenario, error) {
	all := suite.Scenarios()
	if only == "" {
		return all, nil
	}
	var out []suite.Scenario
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s suite.Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: no scenario %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func write(o options, rows []suite.Row) error {
	raw, err := json.MarshalIndent(map[string]any{"cores": runtime.NumCPU(), "rows": rows}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.json, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	table := suite.Table(rows)
	fmt.Print(table)
	if o.page == "" {
		return nil
	}
	page, err := os.ReadFile(o.page)
	if err != nil {
		return err
	}
	how := fmt.Sprintf("Medians of as many rounds as the column says, %d cores, %s; `make chaos ARGS=\"-rounds %d -other-rounds %d\"`.\n\n", runtime.NumCPU(), runtime.GOARCH, o.rounds, o.others)
	text, err := suite.Splice(string(page), how+table)
	if err != nil {
		return err
	}
	return os.WriteFile(o.page, []byte(text), 0o644)
}
