package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// The cluster's DNS answers names of Services with the addresses of their ready pods, as for a headless Service: there are no
// ClusterIPs behind which somebody would translate. Other names do not exist, and there is no world outside.

const (
	clusterDomain = "cluster.local"
	dnsTTL        = 1 // seconds
)

// resolver answers for one cluster, at the node's address.
type resolver struct {
	k    *Kubelet
	conn net.PacketConn
}

func (k *Kubelet) startDNS(ctx context.Context) error {
	r := &resolver{k: k}
	err := k.Node.NS().Do(func() (err error) {
		r.conn, err = net.ListenPacket("udp", netip.AddrPortFrom(k.Cluster.Node(), 53).String())
		return err
	})
	if err != nil {
		return fmt.Errorf("DNS of cluster %s: %w", k.Cluster.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.conn.Close() })
	k.wg.Go(func() {
		defer stop()
		r.serve(ctx)
	})
	return nil
}

func (r *resolver) serve(ctx context.Context) {
	buf := make([]byte, 1500)
	for {
		n, from, err := r.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		question := slices.Clone(buf[:n])
		r.k.wg.Go(func() {
			if answer, err := r.answer(ctx, question); err == nil {
				_, _ = r.conn.WriteTo(answer, from)
			}
		})
	}
}

// answer parses a query and packs the reply.
func (r *resolver) answer(ctx context.Context, query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	addrs, found, err := r.lookup(ctx, q.Name.String())
	code := dnsmessage.RCodeSuccess
	switch {
	case err != nil:
		code = dnsmessage.RCodeServerFailure
	case !found:
		code = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: head.ID, Response: true, Authoritative: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil, err
	}
	if q.Type == dnsmessage.TypeA {
		for _, a := range addrs {
			if err := b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: dnsTTL}, dnsmessage.AResource{A: a.As4()}); err != nil {
				return nil, err
			}
		}
	}
	return b.Finish()
}

// lookup finds <service>.<namespace>.svc.cluster.local.
func (r *resolver) lookup(ctx context.Context, name string) (addrs []netip.Addr, found bool, err error) {
	service, namespace, ok := serviceName(name)
	if !ok {
		return nil, false, nil
	}
	list, err := r.k.Client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, false, err
	}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if !ptr.Deref(e.Conditions.Ready, true) {
				continue
			}
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
					addrs = append(addrs, a)
				}
			}
		}
	}
	return addrs, len(list.Items) > 0, nil
}

func serviceName(name string) (service, namespace string, ok bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), ".svc."+clusterDomain)
	if !ok {
		return "", "", false
	}
	service, namespace, ok = strings.Cut(rest, ".")
	return service, namespace, ok && service != "" && namespace != "" && !strings.Contains(namespace, ".")
}

// resolvConf writes what a pod's containers see as /etc/resolv.conf.
func (w *worker) resolvConf() (proc.Mount, error) {
	path := filepath.Join(w.dir, "resolv.conf")
	text := fmt.Sprintf("nameserver %s\nsearch %s.svc.%s svc.%s %s\noptions ndots:5\n",
		w.k.Cluster.Node(), w.pod.Namespace, clusterDomain, clusterDomain, clusterDomain)
	return proc.Mount{Source: path, Target: "/etc/resolv.conf", ReadOnly: true}, os.WriteFile(path, []byte(text), 0o644)
}
