// Package kubetest starts a real kube-apiserver and etcd for the tests of a package. There are no controllers: namespaces
// stay Terminating, no ServiceAccount and no EndpointSlice appears by itself. The lab (test/lab) has those.
//
// No product package may import it.
package kubetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Root is the root of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// KAOS is a path below test/kaos.
func KAOS(elem ...string) string {
	return filepath.Join(append([]string{Root(), "test", "kaos"}, elem...)...)
}

// HubCRDs is the directory of Isthmus's own CRDs.
func HubCRDs() string { return filepath.Join(Root(), "charts", "hub", "crds") }

// GatewayCRDs is the directory of the Gateway API's CRDs (standard channel), in the version of the module that Isthmus uses.
func GatewayCRDs() string {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	list.Dir = Root()
	out, err := list.Output()
	if err != nil {
		panic(fmt.Errorf("where is the module of the Gateway API: %w", err)) // the module that this very package imports
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "standard")
}

// Start returns the configuration of a fresh API server that has the given CRDs (files or directories), and the function
// that stops it.
func Start(crds ...string) (*rest.Config, func() error, error) {
	apiserver, errA := Program("kube-apiserver")
	etcd, errE := Program("etcd")
	if err := errors.Join(errA, errE); err != nil {
		return nil, nil, err
	}
	env := &envtest.Environment{CRDDirectoryPaths: crds, ErrorIfCRDPathMissing: true, ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: time.Minute}
	env.ControlPlane.GetAPIServer().Path = apiserver
	env.ControlPlane.Etcd = &envtest.Etcd{Path: etcd}
	// Nothing here outlives its process, and a busy disk would hold up each write, for seconds beside a linker.
	env.ControlPlane.Etcd.Configure().Set("unsafe-no-fsync", "true")
	cfg, err := env.Start()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the API server: %w", err), env.Stop())
	}
	cfg.QPS, cfg.Burst = -1, 0
	return cfg, env.Stop, nil
}

// For is Start for one test, which ends the server with it.
func For(t testing.TB, crds ...string) *rest.Config {
	t.Helper()
	config, stop, err := Start(crds...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return config
}

// Program finds a program where hack/tools.sh leaves or takes it: KUBEBUILDER_ASSETS, bin/tools of the checkout, PATH.
func Program(name string) (string, error) {
	candidates := []string{filepath.Join(Root(), "bin", "tools", name), name}
	if folder := os.Getenv("KUBEBUILDER_ASSETS"); folder != "" {
		candidates = append([]string{filepath.Join(folder, name)}, candidates...)
	}
	for _, candidate := range candidates {
		if path, err := exec.LookPath(candidate); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("no %s: run `make tools`, or set KUBEBUILDER_ASSETS to a folder that has it", name)
}

// Run runs a package's tests against one API server with the given CRDs, puts its configuration into config first, and
// returns the exit code: TestMain is `os.Exit(kubetest.Run(m, &config))`.
func Run(m *testing.M, config **rest.Config, crds ...string) int {
	return run(m, func(cfg *rest.Config) error { *config = cfg; return nil }, crds)
}

// RunWithClient is Run with a client, too, that knows Scheme.
func RunWithClient(m *testing.M, config **rest.Config, api *client.Client, crds ...string) int {
	return run(m, func(cfg *rest.Config) (err error) {
		*config = cfg
		*api, err = client.New(cfg, client.Options{Scheme: Scheme()})
		return err
	}, crds)
}

func run(m *testing.M, started func(*rest.Config) error, crds []string) int {
	log.SetLogger(logr.Discard())
	cfg, stop, err := Start(crds...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	if err = started(cfg); err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Scheme knows the kinds of Kubernetes, of the Gateway API and of Isthmus.
func Scheme() *k8sruntime.Scheme {
	s := k8sruntime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s), gatewayv1.Install(s), gatewayv1beta1.Install(s)); err != nil {
		panic(err) // two kinds under one name: a bug that no caller can handle
	}
	return s
}
