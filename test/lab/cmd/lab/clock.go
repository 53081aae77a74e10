package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-dev/isthmus/test/lab"
)

func clock(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "clock CLUSTER[/PROCESS] +1h|-1h|0", Args: cobra.ExactArgs(2),
		Short: "Set the wall clock of a cluster's processes apart from the machine's, or back (0, or heal)",
		Long: "CLOCK_REALTIME of the processes is the machine's plus the offset, which is in whole seconds; their monotonic clock stays. A second\n" +
			"one replaces the first. Processes that start meanwhile get it within some hundredths of a second. Pods of `lab run` are left alone.",
		RunE: func(cmd *cobra.Command, args []string) error {
			offset, err := parseOffset(args[1])
			if err != nil {
				return err
			}
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			at, acted, err := l.Clock(cmd.Context(), args[0], offset)
			return said(fmt.Sprintf("clock %s of", args[1]), at, acted, err)
		},
	}
}

// parseOffset reads +1h, -90s or 0. Without a sign it may be a mistake for a time of day.
func parseOffset(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d != 0 && !strings.HasPrefix(s, "+") && !strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("offset %q: use a duration with its sign, as in +1h or -90s, or 0", s)
	}
	return d, nil
}

// clockArgs lets -1h of `fault clock` be an offset, which flags would take for theirs: it goes behind a "--".
func clockArgs(args []string) []string {
	i := slices.Index(args, "fault")
	if i < 0 || i+1 >= len(args) || args[i+1] != "clock" || slices.Contains(args, "--") {
		return args
	}
	isOffset := func(s string) bool { return len(s) > 1 && s[0] == '-' && s[1] >= '0' && s[1] <= '9' }
	at := slices.IndexFunc(args, isOffset)
	if at < 0 {
		return args
	}
	out := slices.Delete(slices.Clone(args), at, at+1)
	return append(out, "--", args[at])
}
