package suite

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/isthmus-dev/isthmus/test/conformance/plan"
)

var (
	arrangement = flag.String("arrangement", "", "what is tested: the name of a file in arrangements, without .yaml")
	all         = flag.Bool("all", false, "run the tests too that are listed as not run")
	results     = flag.String("results", "", "directory for the results")
)

// TestConformance runs upstream's tests. One that fails and is not listed in arrangements is a regression.
func TestConformance(t *testing.T) {
	if *arrangement == "" || *results == "" {
		t.Fatal("-arrangement and -results are not set: run `make conformance`")
	}
	e, err := plan.Load("../arrangements", *arrangement)
	if err != nil {
		t.Fatal(err)
	}
	o := conformance.DefaultOptions(t)
	manifests, err := plan.Manifests(&conformance.Manifests, e.Translated)
	if err != nil {
		t.Fatal(err)
	}
	o.ManifestFS = []fs.FS{manifests}
	o.RestConfig.QPS, o.RestConfig.Burst = 200, 400
	// Of the API server, on a busy machine; upstream sets these no limit. How soon an implementation must act stays as it is.
	o.TimeoutConfig.CreateTimeout, o.TimeoutConfig.GetTimeout, o.TimeoutConfig.DeleteTimeout = 2*time.Minute, time.Minute, time.Minute
	o.GatewayClassName = e.Class
	o.ConformanceProfiles = []suite.ConformanceProfileName{suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName}
	if o.RunTest == "" && len(o.SupportedFeatures) == 0 {
		o.SupportedFeatures = e.Features
	}
	o.CleanupBaseResources = true
	if !*all {
		o.SkipTests = append(o.SkipTests, e.Skipped()...)
	}
	o.Implementation.Organization, o.Implementation.Project = "isthmus-dev", *arrangement
	o.Implementation.URL, o.Implementation.Version = "https://github.com/isthmus-dev/isthmus", "devel"
	o.Implementation.Contact = []string{"https://github.com/isthmus-dev/isthmus/issues"}
	o.ReportOutputPath = filepath.Join(*results, fmt.Sprintf("conformance-%s.yaml", *arrangement))
	r := &recorder{e: e, results: plan.Results{Arrangement: *arrangement, Title: e.Title}}
	o.Hook = r.note
	begun := time.Now()
	t.Cleanup(func() {
		if o.RunTest != "" || *all {
			return // not what the page shows
		}
		r.results.Seconds = time.Since(begun).Seconds()
		if err := r.results.Write(*results); err != nil {
			t.Error(err)
		}
	})
	checkNames(t, e)
	if e.Translated {
		defineExports(t, o.Client)
	}
	conformance.RunConformanceWithOptions(t, o)
}

// checkNames makes sure that the list names tests that exist.
func checkNames(t *testing.T, e plan.Expected) {
	t.Helper()
	for _, name := range e.Skipped() {
		if !slices.ContainsFunc(tests.ConformanceTests, func(c suite.ConformanceTest) bool { return c.ShortName == name }) {
			t.Errorf("arrangements: there is no test %s", name)
		}
	}
}

// recorder notes what becomes of each test.
type recorder struct {
	e plan.Expected

	mu      sync.Mutex
	results plan.Results
}

func (r *recorder) note(t *testing.T, test suite.ConformanceTest, s *suite.ConformanceTestSuite) {
	out := plan.Result{Test: test.ShortName, Outcome: plan.Passed}
	for _, f := range test.Features {
		if !s.SupportedFeatures.Has(f) {
			out.Features = append(out.Features, string(f))
		}
	}
	switch {
	case t.Failed():
		out.Outcome = plan.Failed
	case len(out.Features) > 0:
		out.Outcome = plan.NotClaimed
	case t.Skipped():
		out.Outcome, out.Reason = plan.Skipped, r.e.Reason(test.ShortName)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results.Tests = append(r.results.Tests, out)
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
