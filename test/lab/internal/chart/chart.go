// Package chart installs Helm charts and custom resource definitions into a cluster, with the Helm SDK.
package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v4/pkg/action"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
)

// Load reads a chart from its directory.
func Load(dir string) (*v2.Chart, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", dir, err)
	}
	return c, nil
}

// CRDs returns the definitions that a chart brings.
func CRDs(c *v2.Chart) ([][]byte, error) {
	var out [][]byte
	for _, crd := range c.CRDObjects() {
		if crd.File == nil {
			return nil, fmt.Errorf("chart %s: CRD %s is empty", c.Name(), crd.Name)
		}
		out = append(out, crd.File.Data)
	}
	return out, nil
}

// ApplyCRDs creates the definitions in the given YAML files, all at once, and waits until all are established. Those that
// exist are left alone. Helm would create them one by one and look every other second.
func ApplyCRDs(ctx context.Context, cfg *rest.Config, files [][]byte) error {
	client, err := clientset.NewForConfig(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range files {
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(f), 4096)
		for {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := decoder.Decode(crd); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("parse a CRD: %w", err)
			}
			if crd.Name != "" {
				g.Go(func() error { return applyCRD(ctx, client, crd) })
			}
		}
	}
	return g.Wait()
}

func applyCRD(ctx context.Context, client clientset.Interface, crd *apiextensionsv1.CustomResourceDefinition) error {
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create CRD %s: %w", crd.Name, err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := crds.Get(ctx, crd.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("CRD %s: %w", crd.Name, err)
		}
		for _, c := range got.Status.Conditions {
			if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("CRD %s is not established: %w", crd.Name, ctx.Err())
		case <-tick.C:
		}
	}
}

// Release is one installation of a chart.
type Release struct {
	Name, Namespace string
	Values          map[string]any
}

// Install installs a chart without its CRDs (see ApplyCRDs) and without waiting for what it starts.
func Install(ctx context.Context, kubeconfig string, c *v2.Chart, r Release, log *slog.Logger) error {
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.Namespace = &kubeconfig, &r.Namespace
	cache := filepath.Join(filepath.Dir(kubeconfig), "discovery")
	flags.CacheDir = &cache
	flags.WithWrapConfigFn(func(cfg *rest.Config) *rest.Config {
		cfg.QPS, cfg.Burst = 500, 1000
		return cfg
	})
	cfg := action.NewConfiguration(action.ConfigurationSetLogger(log.Handler()))
	if err := cfg.Init(flags, r.Namespace, "secret"); err != nil {
		return fmt.Errorf("release %s: %w", r.Name, err)
	}
	install := action.NewInstall(cfg)
	install.ReleaseName, install.Namespace, install.CreateNamespace = r.Name, r.Namespace, true
	install.SkipCRDs, install.WaitStrategy, install.Timeout = true, kube.HookOnlyStrategy, time.Minute
	if _, err := install.RunWithContext(ctx, c, r.Values); err != nil {
		return fmt.Errorf("install chart %s in %s: %w", c.Name(), r.Namespace, err)
	}
	return nil
}
