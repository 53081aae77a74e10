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

// CRDFiles returns the definitions that a chart brings.
func CRDFiles(c *v2.Chart) ([][]byte, error) {
	var out [][]byte
	for _, crd := range c.CRDObjects() {
		if crd.File == nil {
			return nil, fmt.Errorf("chart %s: CRD %s is empty", c.Name(), crd.Name)
		}
		out = append(out, crd.File.Data)
	}
	return out, nil
}

// CRDs are definitions to be created in several clusters.
type CRDs []*apiextensionsv1.CustomResourceDefinition

// ParseCRDs reads definitions from YAML files.
func ParseCRDs(files [][]byte) (CRDs, error) {
	var out CRDs
	for _, f := range files {
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(f), 4096)
		for {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := decoder.Decode(crd); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("parse a CRD: %w", err)
			}
			if crd.Name == "" {
				continue
			}
			out = append(out, crd)
		}
	}
	return out, nil
}

// DropDescriptions takes the descriptions out: they change nothing of what a server accepts, and are much of what it would
// have to work on when it starts.
func (c CRDs) DropDescriptions() {
	for _, crd := range c {
		for _, v := range crd.Spec.Versions {
			if v.Schema != nil {
				dropDescriptions(v.Schema.OpenAPIV3Schema)
			}
		}
	}
}

func dropDescriptions(s *apiextensionsv1.JSONSchemaProps) {
	if s == nil {
		return
	}
	s.Description = ""
	for name, p := range s.Properties {
		dropDescriptions(&p)
		s.Properties[name] = p
	}
	for _, list := range [][]apiextensionsv1.JSONSchemaProps{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			dropDescriptions(&list[i])
		}
	}
	dropDescriptions(s.Not)
	if s.Items != nil {
		dropDescriptions(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		dropDescriptions(s.AdditionalProperties.Schema)
	}
}

// creating is how many definitions a server is given at once: it checks each for seconds of CPU, and ends a request that takes
// longer than half a minute.
const creating = 6

// ApplyCRDs creates definitions, several at once, and waits until all are established. Those that exist are left alone. Helm
// would create them one by one and look every other second.
func ApplyCRDs(ctx context.Context, cfg *rest.Config, definitions CRDs) error {
	client, err := clientset.NewForConfig(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(creating)
	for _, crd := range definitions {
		g.Go(func() error { return applyCRD(ctx, client, crd) })
	}
	return g.Wait()
}

func applyCRD(ctx context.Context, client clientset.Interface, crd *apiextensionsv1.CustomResourceDefinition) error {
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	for {
		_, err := crds.Create(ctx, crd, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			break
		}
		// The server had no time; that it takes a second go is no error of the definition's.
		if !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err) || ctx.Err() != nil {
			return fmt.Errorf("create CRD %s: %w", crd.Name, err)
		}
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
	cfg, err := configuration(kubeconfig, r, log)
	if err != nil {
		return err
	}
	install := action.NewInstall(cfg)
	install.ReleaseName, install.Namespace, install.CreateNamespace = r.Name, r.Namespace, true
	install.SkipCRDs, install.WaitStrategy, install.Timeout = true, kube.HookOnlyStrategy, time.Minute
	if _, err := install.RunWithContext(ctx, c, r.Values); err != nil {
		return fmt.Errorf("install chart %s in %s: %w", c.Name(), r.Namespace, err)
	}
	return nil
}

// Upgrade gives a release that is installed other values.
func Upgrade(ctx context.Context, kubeconfig string, c *v2.Chart, r Release, log *slog.Logger) error {
	cfg, err := configuration(kubeconfig, r, log)
	if err != nil {
		return err
	}
	upgrade := action.NewUpgrade(cfg)
	upgrade.Namespace, upgrade.SkipCRDs, upgrade.WaitStrategy, upgrade.Timeout = r.Namespace, true, kube.HookOnlyStrategy, time.Minute
	if _, err := upgrade.RunWithContext(ctx, r.Name, c, r.Values); err != nil {
		return fmt.Errorf("upgrade chart %s in %s: %w", c.Name(), r.Namespace, err)
	}
	return nil
}

func configuration(kubeconfig string, r Release, log *slog.Logger) (*action.Configuration, error) {
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
		return nil, fmt.Errorf("release %s: %w", r.Name, err)
	}
	return cfg, nil
}
