package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Cluster is a member cluster.
type Cluster struct {
	Name, Edge string
	client     client.WithWatch
	kube       kubernetes.Interface // for proxies to pods
}

// Fleet is the fleet under test.
type Fleet struct {
	Hub      *Cluster // its API server; Edge is empty
	Clusters []*Cluster
	hub      string // kubeconfig
	lab      string
	bin      string // the checkout's bin
	dir      string // of journals
}

// Load reads the output of `bin/lab env --json`; lab is the lab's name, root the checkout.
func Load(envFile, lab, root string) (*Fleet, error) {
	raw, err := os.ReadFile(envFile)
	if err != nil {
		return nil, err
	}
	var env struct {
		Hub      struct{ Cluster, Kubeconfig string }
		Clusters []struct{ Name, Kubeconfig, Edge string }
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("parse %s: %w", envFile, err)
	}
	if len(env.Clusters) < 3 || lab == "" {
		return nil, fmt.Errorf("%s lists %d clusters in lab %q: three clusters of a lab are needed", envFile, len(env.Clusters), lab)
	}
	f := &Fleet{lab: lab, hub: env.Hub.Kubeconfig, bin: filepath.Join(root, "bin")}
	if f.Hub, err = newCluster(env.Hub.Cluster, env.Hub.Kubeconfig, ""); err != nil {
		return nil, err
	}
	for _, c := range env.Clusters {
		cl, err := newCluster(c.Name, c.Kubeconfig, c.Edge)
		if err != nil {
			return nil, err
		}
		f.Clusters = append(f.Clusters, cl)
	}
	f.dir, err = os.MkdirTemp("", "isthmus-chaos-")
	return f, err
}

// Close removes the journals.
func (f *Fleet) Close() error { return os.RemoveAll(f.dir) }

func newCluster(name, kubeconfig, edge string) (*Cluster, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	cfg.QPS, cfg.Burst, cfg.Timeout, cfg.WarningHandler = 500, 1000, 10*time.Second, rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	return &Cluster{Name: name, Edge: edge, client: c, kube: kube}, err
}

func (f *Fleet) cluster(name string) (*Cluster, error) {
	for _, c := range f.Clusters {
		if c.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no cluster %q", name)
}

// Fault runs `bin/lab fault` and returns when it acted.
func (f *Fleet) Fault(ctx context.Context, args ...string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(f.bin, "lab"), append([]string{"--name", f.lab, "fault"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return time.Time{}, fmt.Errorf("lab fault %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	first, _, _ := strings.Cut(string(out), "\n")
	at, err := time.Parse(time.RFC3339Nano, first[strings.LastIndexByte(first, ' ')+1:])
	if err != nil {
		return time.Time{}, fmt.Errorf("lab fault %s: it does not say when: %w", strings.Join(args, " "), err)
	}
	return at, nil
}

// explain asks the hub how a path is routed from a spoke.
func (f *Fleet) explain(ctx context.Context, path, from string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(f.bin, "isthmus"), "explain", path, "--from", from, "--kubeconfig", f.hub).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("isthmus explain: %w: %s", err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Agent is an agent that runs in one cluster.
type Agent struct {
	cmd  *exec.Cmd
	done chan struct{}
	once sync.Once
}

// Run declares an agent in a cluster and runs its pods.
func (f *Fleet) Run(ctx context.Context, c *Cluster, ns, name string, replicas int, args ...string) (*Agent, error) {
	if err := f.declare(ctx, c, ns, name); err != nil {
		return nil, err
	}
	return f.serve(c, ns, name, replicas, args...)
}

// declare makes an agent's object, and its namespace.
func (f *Fleet) declare(ctx context.Context, c *Cluster, ns, name string) error {
	if err := c.namespace(ctx, ns); err != nil {
		return err
	}
	return client.IgnoreAlreadyExists(c.client.Create(ctx, agentObject(ns, name)))
}

func (c *Cluster) namespace(ctx context.Context, name string) error {
	space := &corev1.Namespace{}
	space.Name = name
	return client.IgnoreAlreadyExists(c.client.Create(ctx, space))
}

// serve runs an agent's pods, whether it is declared or not.
func (f *Fleet) serve(c *Cluster, ns, name string, replicas int, args ...string) (*Agent, error) {
	command := []string{"run", "--name", f.lab, "--cluster", c.Name, "--service", ns + "/agent-" + name + ":8000", "--replicas", fmt.Sprint(replicas), "--",
		filepath.Join(f.bin, "agent"), "--agent-name", name, "--journal", f.journal(name)}
	cmd := exec.Command(filepath.Join(f.bin, "lab"), append(command, args...)...)
	a := &Agent{cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(a.done)
	}()
	return a, nil
}

// Stop ends the agent's pods in an orderly way.
func (a *Agent) Stop() {
	a.once.Do(func() { _ = a.cmd.Process.Signal(syscall.SIGTERM) })
	<-a.done
}

func agentObject(ns, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"modelAPI": "model", "model": "smollm2:135m"}}}
	u.SetAPIVersion("kaos.tools/v1alpha1")
	u.SetKind("Agent")
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

func (f *Fleet) journal(name string) string { return filepath.Join(f.dir, name+".journal") }

// Undeclare deletes an agent's object.
func (f *Fleet) undeclare(ctx context.Context, c *Cluster, ns, name string) error {
	return client.IgnoreNotFound(c.client.Delete(ctx, agentObject(ns, name)))
}

// pods are Isthmus's.
func (c *Cluster) pods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.client.List(ctx, &list, client.InNamespace(system))
	return list.Items, err
}

// nobodyStops fails while a pod of Isthmus still stops: a router that does may serve streams, which it ends when its drain is over.
func (f *Fleet) nobodyStops(ctx context.Context) error {
	for _, c := range f.Clusters {
		pods, err := c.pods(ctx)
		if err != nil {
			return err
		}
		for i := range pods {
			if p := &pods[i]; p.DeletionTimestamp != nil {
				return fmt.Errorf("%s in %s still stops", p.Name, c.Name)
			}
		}
	}
	return nil
}

// deletePods deletes Isthmus's pods of a workload, as a rolling update or a drained node does.
func (c *Cluster) deletePods(ctx context.Context, workload string) error {
	pods, err := c.pods(ctx)
	if err != nil {
		return err
	}
	n := 0
	for i := range pods {
		if strings.HasPrefix(pods[i].Name, workload+"-") {
			n++
			if err := c.client.Delete(ctx, &pods[i]); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		return fmt.Errorf("no pod of %s in %s", workload, c.Name)
	}
	return nil
}

// spokesAvailable says whether the hub sees every spoke.
func (f *Fleet) spokesAvailable(ctx context.Context) error {
	var list v1alpha1.SpokeList
	if err := f.Hub.client.List(ctx, &list); err != nil {
		return err
	}
	if len(list.Items) < len(f.Clusters) {
		return fmt.Errorf("%d Spokes", len(list.Items))
	}
	for _, s := range list.Items {
		ok := false
		for _, c := range s.Status.Conditions {
			ok = ok || (c.Type == v1alpha1.SpokeAvailable && c.Status == "True")
		}
		if !ok {
			return fmt.Errorf("spoke %s is not Available: %+v", s.Name, s.Status.Conditions)
		}
	}
	return nil
}
