package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// verdict counts a probe's results in a row. It is pure.
type verdict struct {
	success, failure int // thresholds
	passed, failed   int // in a row
	ok               bool
}

func newVerdict(p *corev1.Probe, initially bool) *verdict {
	return &verdict{success: int(max(p.SuccessThreshold, 1)), failure: int(max(p.FailureThreshold, 1)), ok: initially}
}

// add counts one result; it returns what the probe says after it, and whether a threshold was reached by this result.
func (v *verdict) add(ok bool) (now, reached bool) {
	if ok {
		v.passed, v.failed = v.passed+1, 0
		if v.passed == v.success {
			v.ok, reached = true, true
		}
	} else {
		v.passed, v.failed = 0, v.failed+1
		if v.failed == v.failure {
			v.ok, reached = false, true
		}
	}
	return v.ok, reached
}

// portOf resolves a port by number or by the name that the container gives it.
func portOf(c *corev1.Container, p intstr.IntOrString) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, port := range c.Ports {
		if port.Name == p.StrVal {
			return int(port.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

func period(p *corev1.Probe) time.Duration {
	return time.Duration(max(p.PeriodSeconds, 1)) * time.Second
}

// attempt runs a probe's action once. Addresses are dialled from outside of the pod, as a kubelet does.
func attempt(ctx context.Context, p *corev1.Probe, c *corev1.Container, podIP string, run func(context.Context, []string) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case p.Exec != nil:
		return run(ctx, p.Exec.Command)
	case p.HTTPGet != nil:
		return httpGet(ctx, p.HTTPGet, c, podIP)
	case p.TCPSocket != nil:
		port, err := portOf(c, p.TCPSocket.Port)
		if err != nil {
			return err
		}
		return dial(ctx, net.JoinHostPort(orHost(p.TCPSocket.Host, podIP), strconv.Itoa(port)))
	case p.GRPC != nil:
		return grpcHealth(ctx, net.JoinHostPort(podIP, strconv.Itoa(int(p.GRPC.Port))), p.GRPC.Service)
	}
	return fmt.Errorf("the probe has no action")
}

func orHost(host, podIP string) string {
	if host != "" {
		return host
	}
	return podIP
}

func dial(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func httpGet(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, podIP string) error {
	port, err := portOf(c, a.Port)
	if err != nil {
		return err
	}
	u := url.URL{Scheme: strings.ToLower(string(a.Scheme)), Host: net.JoinHostPort(orHost(a.Host, podIP), strconv.Itoa(port))}
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	ref, err := url.Parse(a.Path)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.ResolveReference(ref).String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/lab")
	for _, h := range a.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d: %s", resp.StatusCode, body)
	}
	return nil
}

func grpcHealth(ctx context.Context, addr string, service *string) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	req := &healthpb.HealthCheckRequest{}
	if service != nil {
		req.Service = *service
	}
	got, err := healthpb.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return err
	}
	if got.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health: %s", got.Status)
	}
	return nil
}
