// Package lab runs a fleet of real Kubernetes control planes with Isthmus on them, without containers: etcd,
// kube-apiserver and kube-controller-manager per cluster, Isthmus from its charts, an Envoy per router, each pod in a
// network namespace of its own. The command bin/lab is this package with flags; docs/lab.md says how to use it.
//
// A program that calls Up must call Reexec first thing in main (a test: in TestMain), because a lab's daemon and the first
// process of each of its containers are the same binary.
//
//	l, err := lab.Up(ctx, lab.Options{Name: "mine", Clusters: []string{"eu", "us"}})
//	defer l.Down(ctx)
//	env, err := l.Env()              // kubeconfigs and URLs
//	cmd := l.Command(ctx, "curl", env.Clusters[0].Edge+"/-/ready")
//
// Tests of Isthmus do not use this package: they get kubeconfigs and URLs only, so that they run on kind too.
package lab
