// Package proc starts the lab's processes, plain or as containers (a root file system, a user and a network namespace of
// their own), and keeps them running. All of them die with the lab's daemon, which is the first process of their PID
// namespace. It knows nothing of Kubernetes.
package proc
