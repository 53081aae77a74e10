package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// platform is what differs between the lab and kind.
type platform interface {
	// runAgent runs pods of the demo agent behind a Service until the returned function is called. It returns once
	// one endpoint is ready.
	runAgent(t *testing.T, c *cluster, a agentPods) (stop func())
	// kill ends a process without warning; whatever keeps it running starts it again.
	kill(t *testing.T, c *cluster, process string)
	// hold stops a process and keeps it away until the returned function is called.
	hold(t *testing.T, c *cluster, process string) (release func())
}

// agentPods says what to run behind a Service.
type agentPods struct {
	namespace, service string
	port               int
	replicas           int
	args               []string
}

func platformFromEnv() platform {
	if name := os.Getenv("ISTHMUS_LAB"); name != "" {
		return labPlatform{name: name, binary: filepath.Join(repoRoot(), "bin", "lab"), agent: filepath.Join(repoRoot(), "bin", "agent")}
	}
	return kubePlatform{image: os.Getenv("ISTHMUS_AGENT_IMAGE")}
}

// repoRoot is the checkout that the test runs from: `go test` runs a package's tests in its folder.
func repoRoot() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		return "../.."
	}
	return dir
}

func hostPort(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return u.Host
	}
	return raw
}

type labPlatform struct{ name, binary, agent string }

func (p labPlatform) lab(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, p.binary, args...)
}

func (p labPlatform) runAgent(t *testing.T, c *cluster, a agentPods) func() {
	t.Helper()
	args := []string{"run", "--name", p.name, "--cluster", c.name,
		"--service", fmt.Sprintf("%s/%s:%d", a.namespace, a.service, a.port), "--replicas", fmt.Sprint(max(a.replicas, 1)), "--", p.agent}
	cmd := p.lab(context.WithoutCancel(t.Context()), append(args, a.args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("lab run: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	t.Cleanup(stop)
	waitReady(t, c, a, done, &out)
	return stop
}

func waitReady(t *testing.T, c *cluster, a agentPods, done chan error, out io.Reader) {
	t.Helper()
	eventually(t, "an endpoint of "+a.service+" in "+c.name, func(ctx context.Context) error {
		select {
		case err := <-done:
			text, _ := io.ReadAll(out)
			t.Fatalf("the agent ended: %v\n%s", err, text)
		default:
		}
		slices, err := endpointSlices(ctx, c, a.namespace, a.service)
		if err != nil {
			return err
		}
		for _, s := range slices {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					return nil
				}
			}
		}
		return fmt.Errorf("no ready endpoint in %d slices", len(slices))
	})
}

func (p labPlatform) fault(t *testing.T, kind, target string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if out, err := p.lab(ctx, "fault", kind, "--name", p.name, target).CombinedOutput(); err != nil {
		t.Fatalf("lab fault %s %s: %v\n%s", kind, target, err, out)
	}
}

func (p labPlatform) kill(t *testing.T, c *cluster, process string) {
	p.fault(t, "restart", c.name+"/"+process)
}

func (p labPlatform) hold(t *testing.T, c *cluster, process string) func() {
	p.fault(t, "kill", c.name+"/"+process)
	released := false
	release := func() {
		if !released {
			released = true
			p.fault(t, "restart", c.name+"/"+process)
		}
	}
	t.Cleanup(release)
	return release
}

// runCLI runs the isthmus CLI against the hub.
func runCLI(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(repoRoot(), "bin", "isthmus"), append(args, "--kubeconfig", theFleet.hubKubeconfig)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("isthmus %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
