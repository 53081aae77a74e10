package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options of a run.
type options struct {
	env, lab, agentBinary, labBinary, packages, out string
	changes, known, rounds                          int
	duration                                        time.Duration
	gateways                                        bool
	routes, gatewayChanges, stormChanges            int
	authorisation                                   bool
	spokes, streams, joins                          int
}

func main() {
	var o options
	flag.StringVar(&o.env, "env", "", "file with the output of `lab env --json`")
	flag.StringVar(&o.lab, "lab", "bench", "name of the lab")
	flag.StringVar(&o.labBinary, "lab-binary", "bin/lab", "the lab's binary")
	flag.StringVar(&o.agentBinary, "agent-binary", "bin/agent", "the demo agent's binary")
	flag.StringVar(&o.packages, "packages", "", "file with the output of `make bench-delta`, for the report")
	flag.StringVar(&o.out, "out", "", "write the report to this file as well")
	flag.IntVar(&o.changes, "changes", 200, "changes per propagation row")
	flag.IntVar(&o.known, "known", 100_000, "how many other agents the large rows know")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of the request rows")
	flag.DurationVar(&o.duration, "duration", 3*time.Second, "length of one round of a request row")
	flag.BoolVar(&o.gateways, "gateways", false, "measure Gateways, in a lab that has them, and nothing else")
	flag.IntVar(&o.routes, "routes", 1000, "how many routes the large rows of Gateways have")
	flag.IntVar(&o.gatewayChanges, "gateway-changes", 20, "changes per row of Gateways")
	flag.IntVar(&o.stormChanges, "storm-changes", 1000, "changes of other routes while one is asked for")
	flag.BoolVar(&o.authorisation, "authorisation", false, "measure who is let in between routers, and nothing else")
	flag.IntVar(&o.spokes, "spokes", 1000, "how many spokes there are for -authorisation")
	flag.IntVar(&o.streams, "streams", 100, "how many of the spokes without a cluster join and follow the hub")
	flag.IntVar(&o.joins, "joins", 40, "how many spokes join and are deleted, one after the other")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure := run
	switch {
	case o.gateways:
		measure = runGateways
	case o.authorisation:
		measure = runAuthorisation
	}
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures with few and then with many agents known, in the same lab, and writes the report.
func run(ctx context.Context, o options) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	small, err := b.measure(ctx, "100")
	if err != nil {
		return err
	}
	if err := b.addKnown(ctx, o.known); err != nil {
		return err
	}
	large, err := b.measure(ctx, fmt.Sprint(o.known))
	if err != nil {
		return err
	}
	packages, err := readPackages(o.packages)
	if err != nil {
		return err
	}
	return o.publish(report(o, packages, small, large))
}

// publish prints a report, and writes it to the file that was asked for.
func (o options) publish(text string) error {
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}
