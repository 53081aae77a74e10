// Command conformance shows the results of conformance runs side by side, and writes them to docs/conformance.md when every
// arrangement of test/conformance/arrangements has been run. `make conformance` runs them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/isthmus-dev/isthmus/test/conformance/plan"
)

func main() {
	dir := flag.String("results", "bin/results", "directory of the results")
	page := flag.String("page", "docs/conformance.md", "page that takes the tables")
	arrangements := flag.String("arrangements", "test/conformance/arrangements", "directory of what is expected")
	flag.Parse()
	if err := run(*dir, *page, *arrangements); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(dir, page, arrangements string) error {
	names, err := filepath.Glob(filepath.Join(arrangements, "*.yaml"))
	if err != nil {
		return err
	}
	var all []plan.Results
	var missing []string
	for _, name := range names {
		name = strings.TrimSuffix(filepath.Base(name), ".yaml")
		r, err := plan.Read(plan.Path(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
			continue
		case err != nil:
			return err
		}
		all = append(all, r)
		fmt.Printf("%-28s passed %d, failed %d, not run %d, feature not claimed %d: %.0f s\n", r.Title,
			r.Count(plan.Passed), r.Count(plan.Failed), r.Count(plan.Skipped), r.Count(plan.NotClaimed), r.Seconds)
	}
	if len(missing) > 0 {
		fmt.Printf("%s stays as it is: no results of %s\n", page, strings.Join(missing, ", "))
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	out, err := plan.Page(string(text), all)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(out), 0o644)
}
