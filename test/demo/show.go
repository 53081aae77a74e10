package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// show is the inner stage: everything that a user would do.
type show struct {
	options
	env       environment
	client    *http.Client
	resources []resource
	pods      map[string]*pod // by cluster and path
}

func inner(ctx context.Context, o options) (err error) {
	env, err := readEnvironment(o.env)
	if err != nil {
		return err
	}
	s := &show{options: o, env: env, client: &http.Client{Timeout: 20 * time.Second}, pods: map[string]*pod{}}
	defer s.end()
	for _, step := range []func(context.Context) error{s.apply, s.spokes, s.everywhere, s.conversation, s.unknown, s.explain, s.gateways, s.failover} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
	if o.once {
		heading("All as it should be")
		return nil
	}
	s.goOn()
	<-ctx.Done()
	return nil
}

func (s *show) end() {
	s.client.CloseIdleConnections()
	for _, p := range s.pods {
		p.stop()
	}
}

// apply installs KAOS's CRDs and the samples, and runs pods behind the Services that its operator would make.
func (s *show) apply(ctx context.Context) error {
	heading("KAOS samples, spread over the clusters (kubectl apply)")
	resources, manifests, err := loadSamples()
	if err != nil {
		return err
	}
	s.resources = resources
	g, gctx := errgroup.WithContext(ctx)
	for _, c := range s.env.Clusters {
		g.Go(func() error {
			if _, err := kubectl(gctx, c.Kubeconfig, nil, "apply", "--server-side", "-f", kaosFolder+"/crds"); err != nil {
				return err
			}
			if _, err := kubectl(gctx, c.Kubeconfig, nil, "wait", "--for=condition=Established", "--timeout=30s", "-f", kaosFolder+"/crds"); err != nil {
				return err
			}
			_, err := kubectl(gctx, c.Kubeconfig, manifests[c.Name], "apply", "-f", "-")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, r := range resources {
		note("%-38s in %s", r.path(), strings.Join(r.clusters, " and "))
		for _, name := range r.clusters {
			if err := s.run(ctx, s.env.cluster(name), r); err != nil {
				return err
			}
		}
	}
	return nil
}

// run starts a resource's pod in a cluster. The coordinator gets its peers' addresses, as the KAOS operator hands them
// over, but by their names in the fleet: its own cluster's edge.
func (s *show) run(ctx context.Context, in cluster, r resource) error {
	environ := []string{"AGENT_DESCRIPTION=" + r.name + " of the KAOS samples", "POD_NAME=" + r.name + "@" + in.Name}
	if r.name == "coordinator" {
		environ = append(environ, "PEER_AGENTS=worker-1,worker-2")
		for _, peer := range []string{"worker-1", "worker-2"} {
			key := "PEER_AGENT_" + strings.ToUpper(strings.ReplaceAll(peer, "-", "_")) + "_CARD_URL"
			environ = append(environ, key+"="+in.Edge+"/"+r.namespace+"/agent/"+peer)
		}
	}
	p, err := runPod(ctx, s.name, in, r, environ)
	if err != nil {
		return err
	}
	s.pods[in.Name+r.path()] = p
	return nil
}

func (s *show) spokes(ctx context.Context) error {
	heading("kubectl get spokes")
	deadline, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Wait for the exports, so that the table shows them.
	if err := s.ready(deadline); err != nil {
		return err
	}
	out, err := kubectl(ctx, s.env.Hub.Kubeconfig, nil, "get", "spokes")
	if err != nil {
		return err
	}
	fmt.Print(indent(out))
	return nil
}

// ready waits until each resource answers at its own edge and at the next cluster's, from any of its places.
func (s *show) ready(ctx context.Context) error {
	for _, r := range s.resources {
		for _, c := range s.env.Clusters {
			if _, err := until(ctx, s.client, c.Edge+r.path()+"/health", r.clusters...); err != nil {
				return err
			}
		}
	}
	return nil
}

// everywhere asks for every resource at every edge.
func (s *show) everywhere(ctx context.Context) error {
	heading("Every resource at every cluster's edge: who served it, and how long it took")
	fmt.Printf("   %-38s", "")
	for _, c := range s.env.Clusters {
		fmt.Printf("%-16s", "at "+c.Name)
	}
	fmt.Println()
	var wrong []error
	for _, r := range s.resources {
		fmt.Printf("   %-38s", r.path())
		for _, c := range s.env.Clusters {
			want := r.clusters
			if slices.Contains(want, c.Name) {
				want = []string{c.Name} // home first
			}
			a, err := until(ctx, s.client, c.Edge+r.path()+"/health", want...)
			if err != nil {
				wrong = append(wrong, err)
			}
			fmt.Printf("%-16s", fmt.Sprintf("%s %s", a.servedBy, a.took.Round(time.Millisecond/10)))
		}
		fmt.Println()
	}
	return errors.Join(wrong...)
}

// conversation goes through three clusters: asked in ap, the coordinator lives in eu and passes the task on to us.
func (s *show) conversation(ctx context.Context) error {
	heading("A conversation through three clusters")
	url := s.env.cluster("ap").Edge + "/kaos-multi/agent/coordinator/v1/chat/completions"
	const question = "@worker-1 summarise the report"
	fmt.Printf("   POST %s\n   %q\n", url, question)
	a, err := ask(ctx, s.client, http.MethodPost, url, chat(question))
	if err != nil {
		return err
	}
	note("served by %s in %s: %s", a.servedBy, a.took.Round(time.Millisecond), said(a.body))
	if !a.ok("eu") || !strings.Contains(a.body, "worker-1@us") {
		return fmt.Errorf("wanted coordinator in eu to ask worker-1 in us, got status %d from %q", a.status, a.servedBy)
	}
	return nil
}

// unknown shows what a name that nobody declared gets.
func (s *show) unknown(ctx context.Context) error {
	heading("A name that nobody declared")
	url := s.env.cluster("us").Edge + "/kaos-multi/agent/worker-9/health"
	a, err := ask(ctx, s.client, http.MethodGet, url, "")
	if err != nil {
		return err
	}
	note("GET %s\n   %d %s", url, a.status, a.body)
	if a.status != http.StatusNotFound {
		return fmt.Errorf("wanted 404, got %d", a.status)
	}
	return nil
}

func (s *show) explain(ctx context.Context) error {
	heading("isthmus explain /kaos-simple/agent/simple-agent --from eu")
	cmd := exec.CommandContext(ctx, "bin/isthmus", "explain", "/kaos-simple/agent/simple-agent", "--from", "eu", "--kubeconfig", s.env.Hub.Kubeconfig)
	out, err := cmd.CombinedOutput()
	fmt.Print(indent(string(out)))
	if err != nil {
		return fmt.Errorf("isthmus explain: %w", err)
	}
	return nil
}

func (s *show) goOn() {
	heading("Go on yourself; Ctrl-C ends it all")
	eu, exec := s.env.cluster("eu"), "bin/lab exec --name "+s.name+" --"
	for _, line := range []string{
		exec + " curl -si " + eu.Edge + "/kaos-multi/agent/worker-1/health",
		exec + " curl -s " + eu.Edge + "/kaos-multi/agent/coordinator/v1/chat/completions -d '" + chat("@worker-2 hello") + "'",
		exec + " curl -sN " + eu.Edge + "/kaos-multi/agent/worker-2/sse",
		exec + " kubectl get spokes",
		exec + " kubectl --kubeconfig " + s.env.cluster("us").Kubeconfig + " get agents -A",
		exec + " bin/isthmus get resources",
		"bin/lab fault kill --name " + s.name + " eu/hub      # traffic goes on; bin/lab fault restart ...",
		"bin/lab status --name " + s.name,
	} {
		fmt.Println("   " + line)
	}
	if eu.Gateway != "" {
		fmt.Println("   " + exec + " curl -si " + eu.Gateway + "/health -H 'Host: " + workerDomain + "'")
		fmt.Println("   " + exec + " kubectl describe gateway -n kaos-multi public")
	}
	fmt.Fprintln(os.Stdout)
}

func indent(text string) string {
	return "   " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n   ") + "\n"
}
