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
	env, lab, root, json, page, only, note string
	rounds, others                         int
	hold                                   time.Duration
	figures                                bool
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
	flag.DurationVar(&o.hold, "hold", 0, "how long each fault lasts (default: as the scenario says)")
	flag.BoolVar(&o.figures, "figures", false, "measure the figures of restarts only; -only then names those")
	flag.StringVar(&o.note, "note", "", "what the page says above the table (default: what it says, or after a run of all what that run was)")
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
	chosen, trials, err := choose(o)
	if err != nil {
		return err
	}
	if o.rounds < 1 || o.rounds > 99 || o.others < 1 || o.others > 99 {
		return fmt.Errorf("-rounds %d -other-rounds %d: use 1 to 99", o.rounds, o.others)
	}
	if o.hold < 0 || o.hold > 10*time.Minute {
		return fmt.Errorf("-hold %s: use up to 10m", o.hold)
	}
	if o.hold > 0 && o.page != "" {
		return errors.New("-hold is for looking at faults of other lengths: the page's table is of what the scenarios say (leave out -page, or make it empty)")
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
	broken := measure(ctx, u, chosen, o)
	figures, failed := try(ctx, u, trials, o.rounds)
	return errors.Join(write(o, "", nil, figures), broken, failed)
}

// measure runs every chosen scenario and writes each row when it is measured; one that fails does not keep the next from running.
func measure(ctx context.Context, u *suite.Suite, chosen []suite.Scenario, o options) error {
	var broken []error
	note := o.note
	if note == "" && o.only == "" {
		note = fmt.Sprintf("Medians of as many rounds as the column says, %d cores, %s, load of the machine when it began %s; `make chaos ARGS=\"-rounds %d -other-rounds %d\"`.",
			runtime.NumCPU(), runtime.GOARCH, loadAverage(), o.rounds, o.others)
	}
	for _, sc := range chosen {
		var own []suite.Row
		if o.hold > 0 {
			sc.Hold = o.hold
		}
		rounds := o.others
		if sc.Figure {
			rounds = o.rounds
		}
		for range rounds {
			if ctx.Err() != nil {
				return errors.Join(append(broken, ctx.Err())...)
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
			if err := write(o, note, []suite.Row{suite.Median(own)}, nil); err != nil {
				return errors.Join(append(broken, err)...)
			}
		}
	}
	return errors.Join(broken...)
}

// loadAverage of the last minute, as the kernel says.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

// choose picks scenarios and trials: all, or by name.
func choose(o options) ([]suite.Scenario, []suite.Trial, error) {
	if o.figures {
		trials, err := pick(suite.Trials(), o.only, func(t suite.Trial) string { return t.Name })
		return nil, trials, err
	}
	scenarios, err := pick(suite.Scenarios(), o.only, func(s suite.Scenario) string { return s.Name })
	if o.only != "" {
		return scenarios, nil, err
	}
	return scenarios, suite.Trials(), err
}

func pick[T any](all []T, only string, name func(T) string) ([]T, error) {
	if only == "" {
		return all, nil
	}
	var out []T
	for wanted := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(t T) bool { return name(t) == wanted })
		if i < 0 {
			return nil, fmt.Errorf("-only: no %q", wanted)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func write(o options, note string, rows []suite.Row, figures []suite.Figure) error {
	// What this run did not measure stays as it is.
	doc := map[string]json.RawMessage{}
	if raw, err := os.ReadFile(o.json); err == nil {
		if err := json.Unmarshal(raw, &doc); err != nil {
			return fmt.Errorf("parse %s, to add to it: %w (delete it)", o.json, err)
		}
	}
	var errs []error
	set := func(key string, value any) {
		raw, err := json.Marshal(value)
		errs, doc[key] = append(errs, err), raw
	}
	set("cores", runtime.NumCPU())
	if len(rows) > 0 {
		var old []suite.Row
		if raw := doc["rows"]; raw != nil {
			if err := json.Unmarshal(raw, &old); err != nil {
				return fmt.Errorf("rows of %s, to add to them: %w (delete it)", o.json, err)
			}
		}
		set("rows", suite.Merge(old, rows))
	}
	if len(figures) > 0 {
		merged, err := mergeFigures(doc["figures"], figures)
		if err != nil {
			return err
		}
		figures = merged
		set("figures", figures)
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	if err := os.WriteFile(o.json, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return publish(o, note, rows, figures)
}

// publish prints the tables and puts them into the page.
func publish(o options, note string, rows []suite.Row, figures []suite.Figure) error {
	on := fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.GOARCH)
	var faults, numbers string
	if len(rows) > 0 {
		faults = suite.Table(rows)
		fmt.Print(faults)
	}
	if len(figures) > 0 {
		numbers = suite.FigureTable(figures)
		fmt.Print(numbers)
	}
	if o.page == "" {
		return nil
	}
	page, err := os.ReadFile(o.page)
	if err != nil {
		return err
	}
	text := string(page)
	if faults != "" {
		text, err = suite.Splice(text, note, rows)
	}
	if numbers != "" && err == nil {
		how := fmt.Sprintf("Medians and ranges, %s; `make chaos ARGS=\"-figures -rounds %d\"`.\n\n", on, o.rounds)
		text, err = suite.SpliceFigures(text, how+numbers)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(o.page, []byte(text), 0o644)
}
