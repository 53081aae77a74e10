package main

import (
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// clusterEnv is a cluster as `lab env --json` prints it.
type clusterEnv struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	Edge       string `json:"edge"`
	Gateway    string `json:"gateway"`
	Eastwest   string `json:"eastwest"`
}

type cluster struct {
	clusterEnv
	client client.WithWatch
}

// fleet is the lab under measurement: the hub's API and its member clusters.
type fleet struct {
	hub        client.WithWatch
	hubCluster string
	all        []cluster
	at, from   cluster // the first two: requests enter at at, agents run in from
}

func loadFleet(path string) (*fleet, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("-env: %w", err)
	}
	var env struct {
		Hub      struct{ Cluster, Kubeconfig string } `json:"hub"`
		Clusters []clusterEnv                         `json:"clusters"`
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("-env %s: %w", path, err)
	}
	if len(env.Clusters) < 2 {
		return nil, fmt.Errorf("-env %s: %d clusters, 2 are needed", path, len(env.Clusters))
	}
	f := &fleet{hubCluster: env.Hub.Cluster}
	if f.hub, err = newClient(env.Hub.Kubeconfig); err != nil {
		return nil, err
	}
	for _, e := range env.Clusters {
		c := cluster{clusterEnv: e}
		if c.client, err = newClient(c.Kubeconfig); err != nil {
			return nil, err
		}
		f.all = append(f.all, c)
	}
	f.at, f.from = f.all[0], f.all[1]
	return f, nil
}

func newClient(kubeconfig string) (client.WithWatch, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst, cfg.WarningHandler = 2000, 4000, rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.NewWithWatch(cfg, client.Options{Scheme: scheme})
}
