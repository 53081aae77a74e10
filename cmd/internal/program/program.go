// Package program is what the commands share: how they start, log, stop, say their version and take flags from the
// environment.
package program

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Main runs a command until it ends, or until SIGINT or SIGTERM, and ends the process: with code 1 when the command failed.
func Main(c *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := c.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name(), err)
		os.Exit(1)
	}
}

// Logger makes a long-running command log JSON to stderr, at the level of a flag --log-level that it adds, and has every flag
// that was not given taken from the environment before anything runs.
func Logger(c *cobra.Command) *slog.Logger {
	var level slog.LevelVar
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	c.PersistentFlags().TextVar(&level, "log-level", &level, "debug, info, warn or error")
	c.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
		klog.SetLogger(logr.FromSlogHandler(log.Handler()))
		return FromEnvironment(c.Flags(), os.LookupEnv)
	}
	return log
}

// FromEnvironment sets each flag that was not given from ISTHMUS_<FLAG>.
func FromEnvironment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		name := "ISTHMUS_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if v, ok := lookup(name); ok && !flag.Changed && failed == nil {
			if err := f.Set(flag.Name, v); err != nil {
				failed = fmt.Errorf("environment variable %s: %w", name, err)
			}
		}
	})
	return failed
}
