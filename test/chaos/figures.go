package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/isthmus-dev/isthmus/test/chaos/suite"
)

// try runs every trial as often as asked and returns what they gave; a round that fails gives nothing, and is said.
func try(ctx context.Context, u *suite.Suite, trials []suite.Trial, rounds int) ([]suite.Figure, error) {
	var figures []suite.Figure
	var failed []error
	for _, trial := range trials {
		for range rounds {
			if ctx.Err() != nil {
				return figures, errors.Join(append(failed, ctx.Err())...)
			}
			values, err := u.Try(ctx, trial)
			if err != nil {
				failed = append(failed, err)
				fmt.Println(err)
				continue
			}
			for i, f := range trial.Figures {
				trial.Figures[i].Values = append(f.Values, values[f.Name])
				fmt.Printf("%-22s %.3f %s\n", f.Name, values[f.Name], f.Unit)
			}
		}
		for _, f := range trial.Figures {
			if len(f.Values) > 0 {
				figures = append(figures, f)
			}
		}
	}
	return figures, errors.Join(failed...)
}

// mergeFigures keeps the figures of an earlier run that this one did not measure, in the order of the trials.
func mergeFigures(earlier json.RawMessage, measured []suite.Figure) ([]suite.Figure, error) {
	var known, out []suite.Figure
	if len(earlier) > 0 {
		if err := json.Unmarshal(earlier, &known); err != nil {
			return nil, fmt.Errorf("figures of an earlier run: %w (delete the file)", err)
		}
	}
	for _, trial := range suite.Trials() {
		for _, f := range trial.Figures {
			for _, from := range [][]suite.Figure{measured, known} {
				if i := slices.IndexFunc(from, func(k suite.Figure) bool { return k.Name == f.Name }); i >= 0 {
					f.Values = from[i].Values
					out = append(out, f)
					break
				}
			}
		}
	}
	return out, nil
}
