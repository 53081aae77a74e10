// Package kubelet stands in for the scheduler, the kubelet and the cloud's load balancers of a lab cluster: it binds the
// pods that the real controllers create to the cluster's one Node, runs their containers as processes per the pod
// template, keeps their volumes, probes and statuses, and routes the addresses of LoadBalancer Services to ready pods.
//
// What it runs is what the API server holds: a template with a missing flag, volume or permission fails here as it would
// in a cluster. It knows nothing of Isthmus. Its user is an administrator, its containers have what their ServiceAccount has.
package kubelet
