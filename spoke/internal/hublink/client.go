package hublink

import (
	"bytes"
	"errors"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// Hub is a set of clients for the hub's API server. They use the token of the moment; Fits says when a new set is needed.
type Hub struct {
	// Client knows Isthmus's kinds, Kubernetes the others.
	Client     client.WithWatch
	Kubernetes kubernetes.Interface
	// Namespace of this spoke on the hub.
	Namespace string

	made identity.Credentials
	http *http.Client
}

// Hub makes clients with the current credentials.
func (k *Keeper) Hub(c identity.Credentials) (*Hub, error) {
	cfg := &rest.Config{
		Host: c.APIServer,
		// One connection per request in flight: one that a partition has swallowed ends with its request, and neither
		// holds up the Lease nor waits for HTTP/2's health check.
		TLSClientConfig: rest.TLSClientConfig{CAData: c.APICA, NextProtos: []string{"http/1.1"}},
		QPS:             -1,
		UserAgent:       "isthmus-spoke",
		WrapTransport:   func(rt http.RoundTripper) http.RoundTripper { return &bearer{k, rt} },
	}
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	h := &Hub{Namespace: c.Namespace, made: c, http: httpClient}
	scheme := runtime.NewScheme()
	var errs [3]error
	errs[0] = v1alpha1.AddToScheme(scheme)
	h.Client, errs[1] = client.NewWithWatch(cfg, client.Options{HTTPClient: httpClient, Scheme: scheme, Mapper: mapper()})
	h.Kubernetes, errs[2] = kubernetes.NewForConfigAndClient(cfg, httpClient)
	return h, errors.Join(errs[:]...)
}

// Fits says whether the clients still reach the right place as the right spoke with these credentials.
func (h *Hub) Fits(c identity.Credentials) bool {
	return h.made.APIServer == c.APIServer && h.made.Namespace == c.Namespace && h.made.ID == c.ID && bytes.Equal(h.made.APICA, c.APICA)
}

// Close ends idle connections.
func (h *Hub) Close() { utilnet.CloseIdleConnectionsFor(h.http.Transport) }

// mapper spares the hub a discovery by every spoke.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"AgentSlice", "SpokeReport", "GatewayProgram", "GatewayProgramSet"} {
		m.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	return m
}

// bearer adds the current token, and has it renewed when it is refused.
type bearer struct {
	keeper *Keeper
	next   http.RoundTripper
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	c, _ := b.keeper.Current()
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+c.APIToken)
	resp, err := b.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		b.keeper.Refresh()
	}
	return resp, err
}

// WrappedRoundTripper lets utilnet find the transport below.
func (b *bearer) WrappedRoundTripper() http.RoundTripper { return b.next }
