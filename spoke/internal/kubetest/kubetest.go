// Package kubetest starts a real kube-apiserver for the tests of the spoke's rooms. There are no controllers: namespaces
// stay Terminating, no EndpointSlice appears by itself. No product package may import it.
package kubetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Root is the root of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// KAOS is a path below test/testdata/kaos.
func KAOS(elem ...string) string {
	return filepath.Join(append([]string{Root(), "test", "testdata", "kaos"}, elem...)...)
}

// HubCRDs is the directory of Isthmus's own CRDs.
func HubCRDs() string { return filepath.Join(Root(), "charts", "hub", "crds") }

// Start returns the configuration of a fresh API server that has the given CRDs, and the function that stops it. The
// binaries come from KUBEBUILDER_ASSETS, or bin/tools of the checkout.
func Start(crds ...string) (*rest.Config, func() error, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(Root(), "bin", "tools")
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(assets, name)); err != nil {
			return nil, nil, fmt.Errorf("no %s in %s: run `make tools`, or set KUBEBUILDER_ASSETS: %w", name, assets, err)
		}
	}
	env := &envtest.Environment{BinaryAssetsDirectory: assets, CRDDirectoryPaths: crds, ErrorIfCRDPathMissing: true}
	cfg, err := env.Start()
	if err != nil {
		return nil, nil, errors.Join(err, env.Stop())
	}
	cfg.QPS, cfg.Burst = -1, 0
	return cfg, env.Stop, nil
}

// Run runs a package's tests against one API server with the given CRDs, puts its configuration into config first, and
// returns the exit code: TestMain is `os.Exit(kubetest.Run(m, &config))`.
func Run(m interface{ Run() int }, config **rest.Config, crds ...string) int {
	cfg, stop, err := Start(crds...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*config = cfg
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
