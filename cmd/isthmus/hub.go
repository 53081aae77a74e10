package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

// hub is the debug endpoint behind the API server's Service proxy.
type hub struct {
	kubeconfig, context, namespace, service string
}

// get returns the body of an answer; a problem body is an error that says what it says.
func (h *hub) get(ctx context.Context, path string, query map[string]string) ([]byte, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = h.kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: h.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	body, err := clients.CoreV1().Services(h.namespace).ProxyGet("http", h.service, "debug", path, query).DoRaw(ctx)
	if err == nil {
		return body, nil
	}
	var p debugapi.Problem
	if json.Unmarshal(body, &p) == nil && p.Detail != "" {
		return nil, errors.New(p.Detail)
	}
	if apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("%w: reading the hub needs the right to get services/proxy of %s in namespace %s", err, h.service, h.namespace)
	}
	return nil, fmt.Errorf("hub at Service %s/%s, port debug: %w", h.namespace, h.service, err)
}
