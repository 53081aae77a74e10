//go:build tools

// Package kube pins the Kubernetes control plane that the lab builds: etcd, kube-apiserver, kube-controller-manager, kubectl.
package kube

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
