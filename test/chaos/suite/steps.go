package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

func (s *stage) named(role string) (*Cluster, error) {
	name := s.expand(role)
	if name == s.fleet.Hub.Name {
		if c, err := s.fleet.cluster(name); err == nil {
			return c, nil
		}
		return s.fleet.Hub, nil
	}
	return s.fleet.cluster(name)
}

// run is a step that runs an agent in a cluster and waits until it serves there.
func run(role, name string, replicas int, args ...string) Step {
	return func(ctx context.Context, s *stage) error {
		c, err := s.named(role)
		if err != nil {
			return err
		}
		if err := s.run(ctx, c, name, replicas, args...); err != nil {
			return err
		}
		return s.await(ctx, name+" in "+c.Name, func(ctx context.Context) error { return s.served(ctx, c, name, c.Name) })
	}
}

// answersOver waits until the client's edge is answered for an agent by the other cluster.
func answersOver(name string) Step { return answers(name, "{other}") }

// answers waits until the client's edge is answered for an agent by a cluster.
func answers(name, role string) Step {
	return func(ctx context.Context, s *stage) error {
		want := s.expand(role)
		return s.await(ctx, name+" at "+s.client.Name+" served by "+want, func(ctx context.Context) error { return s.served(ctx, s.client, name, want) })
	}
}

// hasPlace waits until the hub knows of an agent's place in a cluster.
func hasPlace(name, role string) Step {
	return func(ctx context.Context, s *stage) error {
		place := s.expand(role)
		return s.await(ctx, "the hub's place of "+name+" in "+place, func(ctx context.Context) error {
			out, err := s.fleet.explain(ctx, s.path(name), s.client.Name)
			if err == nil && !strings.Contains(out, place) {
				err = fmt.Errorf("explain says %s", out)
			}
			return err
		})
	}
}

// withdraw ends an agent's pods in a cluster and takes its object away.
func withdraw(role, name string) Step {
	return func(ctx context.Context, s *stage) error {
		c, err := s.named(role)
		if err != nil {
			return err
		}
		err = s.fleet.undeclare(ctx, c, s.ns, name)
		if a := s.agents[c.Name+"/"+name]; a != nil {
			a.Stop()
			delete(s.agents, c.Name+"/"+name)
		}
		return err
	}
}

func deletePods(role, workload string) Step {
	return func(ctx context.Context, s *stage) error {
		c, err := s.named(role)
		if err != nil {
			return err
		}
		return c.deletePods(ctx, workload)
	}
}

// firstRun is how long, and a second since such times are whole ones, a relay has to run until its supervisor no longer ends with it, and the container with that (decision 0012).
const firstRun = 11 * time.Second

// relaysRun waits until every relay has run for so long.
func relaysRun(ctx context.Context, s *stage) error {
	return s.await(ctx, "relays that have run for a while", func(ctx context.Context) error {
		for _, c := range s.fleet.Clusters {
			pods, err := c.pods(ctx)
			if err != nil {
				return err
			}
			for i := range pods {
				for _, container := range pods[i].Status.ContainerStatuses {
					if running := container.State.Running; container.Name == "relay" && (running == nil || time.Since(running.StartedAt.Time) < firstRun) {
						return fmt.Errorf("%s in %s has just started", pods[i].Name, c.Name)
					}
				}
			}
		}
		return nil
	})
}

// killPod has one pod of an agent end itself as SIGKILL would, while the cluster still lists it.
func killPod(name string) Step {
	return func(ctx context.Context, s *stage) error {
		url := s.client.Edge + s.path(name) + "/health?kill=1"
		// A POST: a GET would be tried at the next pod, and kill that one too.
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := s.http.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			return fmt.Errorf("the pod of %s lives: it answers %s", name, resp.Status)
		}
		return nil
	}
}

const (
	uploadBytes   = 20 << 20
	uploadChunk   = 4 << 20
	uploadTimeout = 3 * time.Minute
)

// upload sends 20 MB through the slow link, in requests of the 4 MiB that an agent takes at a time, and waits for their end.
func upload(ctx context.Context, s *stage) error {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	hc := &http.Client{}
	defer hc.CloseIdleConnections()
	var errs []error
	for sent := 0; sent < uploadBytes; sent += uploadChunk {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.client.Edge+s.path(twin)+"/health", io.LimitReader(zeros{}, uploadChunk))
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed { // the agent has read it and says so: /health takes no POST
			errs = append(errs, fmt.Errorf("upload: %s", resp.Status))
		}
	}
	return errors.Join(errs...)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
