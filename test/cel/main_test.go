package cel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	crdFolder     = "../../charts/hub/crds"
	testNamespace = "isthmus-spoke-eu"
)

// api is the API server under test; TestMain sets it once.
var api struct {
	config *rest.Config
	client client.Client
}

func TestMain(m *testing.M) {
	code, err := withServer(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(code)
}

func withServer(m *testing.M) (code int, err error) {
	apiserver, err := program("kube-apiserver")
	if err != nil {
		return 0, err
	}
	etcd, err := program("etcd")
	if err != nil {
		return 0, err
	}
	logf.SetLogger(logr.Discard())
	env := &envtest.Environment{CRDDirectoryPaths: []string{crdFolder}, ErrorIfCRDPathMissing: true}
	env.ControlPlane.GetAPIServer().Path = apiserver
	env.ControlPlane.Etcd = &envtest.Etcd{Path: etcd}
	if api.config, err = env.Start(); err != nil {
		return 0, fmt.Errorf("start the API server: %w", err)
	}
	defer func() {
		if stopErr := env.Stop(); err == nil && stopErr != nil {
			err = fmt.Errorf("stop the API server: %w", stopErr)
		}
	}()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	api.config.QPS, api.config.Burst = 500, 1000
	if api.client, err = client.New(api.config, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// program finds a program where hack/tools.sh leaves or takes it: KUBEBUILDER_ASSETS, bin/tools, PATH.
func program(name string) (string, error) {
	candidates := []string{filepath.Join("../../bin/tools", name), name}
	if folder := os.Getenv("KUBEBUILDER_ASSETS"); folder != "" {
		candidates = slices.Insert(candidates, 0, filepath.Join(folder, name))
	}
	for _, candidate := range candidates {
		if path, err := exec.LookPath(candidate); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("no %s: run `make tools`, or set KUBEBUILDER_ASSETS to a folder that has it", name)
}

// makeNamespace makes the namespace of the namespaced kinds, once for all tests.
func makeNamespace(t *testing.T) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testNamespace}}
	if err := api.client.Create(t.Context(), ns); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
}
