// Package kubetest starts a real kube-apiserver, with Isthmus's CRDs, for the tests of the hub's rooms. There are no
// controllers: namespaces stay Terminating, ServiceAccounts are not made. No product package may import it.
package kubetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Start returns the configuration of a fresh API server and the function that stops it. The binaries come from
// KUBEBUILDER_ASSETS, or bin/tools of the checkout.
func Start() (*rest.Config, func() error, error) {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..", "..")
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(root, "bin", "tools")
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if _, err := os.Stat(filepath.Join(assets, name)); err != nil {
			return nil, nil, fmt.Errorf("no %s in %s: run `make tools`, or set KUBEBUILDER_ASSETS: %w", name, assets, err)
		}
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     []string{filepath.Join(root, "charts", "hub", "crds")},
		ErrorIfCRDPathMissing: true,
	}
	cfg, err := env.Start()
	if err != nil {
		return nil, nil, errors.Join(err, env.Stop())
	}
	cfg.QPS, cfg.Burst = -1, 0
	return cfg, env.Stop, nil
}

// Scheme knows the kinds of Kubernetes and of Isthmus.
func Scheme() *k8sruntime.Scheme {
	s := k8sruntime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err) // two kinds under one name: a bug that no caller can handle
	}
	return s
}
