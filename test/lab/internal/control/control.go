// Package control runs a cluster's control plane: etcd, kube-apiserver, kube-controller-manager, and the Node object that
// its pods are bound to. It knows processes and addresses, nothing of Isthmus.
package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/pki"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// Binaries are the paths of the control plane's programs.
type Binaries struct{ Etcd, APIServer, ControllerManager string }

// Plane is a running control plane.
type Plane struct {
	Keepers    map[string]*proc.Keeper // etcd, apiserver, controller-manager
	Config     *rest.Config            // as administrator
	Client     kubernetes.Interface
	Kubeconfig string
	CA         []byte
	NodeName   string

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// controllers are those that Isthmus's charts and tests need; each further one costs start-up time and memory.
var controllers = []string{
	"deployment-controller", "replicaset-controller", "statefulset-controller", "daemonset-controller", "job-controller",
	"endpointslice-controller", "serviceaccount-controller", "serviceaccount-token-controller",
	"root-ca-certificate-publisher-controller", "namespace-controller", "garbage-collector-controller", "disruption-controller",
	"clusterrole-aggregation-controller",
}

// Start starts a control plane in dir and returns once its API server is ready and its Node exists. ctx bounds the start
// only: the plane ends with Stop.
func Start(ctx context.Context, c plan.Cluster, dir, logs string, bin Binaries, node *netlab.Node, run *proc.Runner) (*Plane, error) {
	files, err := pki.Write(filepath.Join(dir, "pki"), c.Name, c.APIServer(), c.Node())
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", c.Name, err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", files.Kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	p := &Plane{Config: cfg, Client: client, Kubeconfig: files.Kubeconfig, CA: files.CAPEM, NodeName: c.Name + "-node", Keepers: map[string]*proc.Keeper{}}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	keep := func(name, path string, args []string, env ...string) error {
		return p.keep(life, name, filepath.Join(logs, name+".log"), run, proc.Spec{Path: path, Args: args, Env: append(os.Environ(), env...), Net: node.NS().File()})
	}
	err = errors.Join(
		keep("etcd", bin.Etcd, etcdArgs(dir)),
		keep("apiserver", bin.APIServer, apiServerArgs(c, files)))
	if err == nil {
		err = p.Ready(ctx)
	}
	if err == nil {
		err = errors.Join(
			keep("controller-manager", bin.ControllerManager, controllerArgs(files), "GOGC=50"),
			p.registerNode(ctx, c))
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("control plane of %s (logs in %s): %w", c.Name, logs, err)
	}
	return p, nil
}

// Stop ends the control plane.
func (p *Plane) Stop() {
	p.cancel()
	p.wg.Wait()
}

func (p *Plane) keep(ctx context.Context, name, log string, run *proc.Runner, s proc.Spec) error {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	s.Stdout, s.Stderr = out, out
	k := &proc.Keeper{Name: name, Log: log, Start: func() (*proc.Process, error) { return run.Start(s) }}
	p.Keepers[name] = k
	p.wg.Go(func() {
		defer out.Close()
		k.Run(ctx)
	})
	return nil
}

func etcdArgs(dir string) []string {
	return []string{
		"--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--quota-backend-bytes", "4294967296",
	}
}

func apiServerArgs(c plan.Cluster, f pki.Files) []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=" + c.Node().String(), "--advertise-address=" + c.Node().String(),
		fmt.Sprintf("--secure-port=%d", plan.APIPort), "--tls-cert-file=" + f.ServerCert, "--tls-private-key-file=" + f.ServerKey,
		"--client-ca-file=" + f.CA, "--service-cluster-ip-range=" + plan.ServiceCIDR, "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + f.ServiceAccountPub,
		"--service-account-signing-key-file=" + f.ServiceAccountKey, "--api-audiences=https://kubernetes.default.svc",
		"--profiling=false", "--shutdown-delay-duration=0s",
	}
}

func controllerArgs(f pki.Files) []string {
	return []string{
		"--kubeconfig=" + f.Kubeconfig, "--leader-elect=false", "--controllers=" + strings.Join(controllers, ","),
		"--service-account-private-key-file=" + f.ServiceAccountKey, "--root-ca-file=" + f.CA, "--bind-address=127.0.0.1",
		"--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false",
		// The defaults wait for batches that are worth it in clusters of thousands of pods.
		"--endpoint-updates-batch-period=0s", "--endpointslice-updates-batch-period=0s",
	}
}

// Ready waits until the API server says that it is.
func (p *Plane) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server does not become ready: %w", err)
		case <-tick.C:
		}
	}
}

func (p *Plane) registerNode(ctx context.Context, c plan.Cluster) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: p.NodeName, Labels: map[string]string{
		corev1.LabelHostname: p.NodeName, corev1.LabelOSStable: "linux",
	}}}
	if l, ok := c.Location(); ok {
		node.Labels[corev1.LabelTopologyRegion], node.Labels[corev1.LabelTopologyZone] = l.Region, l.Region+"-a"
	}
	node, err := p.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("register the node: %w", err)
	}
	quantity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("10000"),
	}
	node.Status.Capacity, node.Status.Allocatable = quantity, quantity
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: c.Node().String()}, {Type: corev1.NodeHostName, Address: p.NodeName}}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	if _, err := p.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("register the node's status: %w", err)
	}
	// Admission taints new nodes as not ready, and no controller of ours takes the taint away.
	for {
		fresh, err := p.Client.CoreV1().Nodes().Get(ctx, p.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		fresh.Spec.Taints = nil
		if _, err = p.Client.CoreV1().Nodes().Update(ctx, fresh, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}
