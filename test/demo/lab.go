package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// environment is what `bin/lab env --json` prints.
type environment struct {
	Hub struct {
		Cluster    string `json:"cluster"`
		Kubeconfig string `json:"kubeconfig"`
	} `json:"hub"`
	Clusters []cluster `json:"clusters"`
}

type cluster struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	Edge       string `json:"edge"`
	Gateway    string `json:"gateway"`
}

func readEnvironment(file string) (environment, error) {
	var env environment
	raw, err := os.ReadFile(file)
	if err != nil {
		return env, err
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		return env, fmt.Errorf("%s: %w", file, err)
	}
	if len(env.Clusters) < 3 {
		return env, fmt.Errorf("%s lists %d clusters, the demo needs 3", file, len(env.Clusters))
	}
	return env, nil
}

func (e environment) cluster(name string) cluster {
	for _, c := range e.Clusters {
		if c.Name == name {
			return c
		}
	}
	return cluster{}
}

// kubectlPath is bin/tools/kubectl, or PATH's where `make tools` found one there and made none.
func kubectlPath() (string, error) {
	if path, err := exec.LookPath("bin/tools/kubectl"); err == nil {
		return path, nil
	}
	return exec.LookPath("kubectl")
}

// kubectl runs kubectl on a cluster and returns what it printed.
func kubectl(ctx context.Context, kubeconfig string, stdin []byte, args ...string) (string, error) {
	path, err := kubectlPath()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// pod is a `bin/lab run`: the pods of one Service in one cluster.
type pod struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// runPod starts the demo agent behind a resource's Service.
func runPod(ctx context.Context, lab string, in cluster, r resource, environ []string) (*pod, error) {
	logFile := filepath.Join("bin", "results", lab, in.Name+"-"+r.service+".log")
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	args := []string{"run", "--name", lab, "--cluster", in.Name, "--service", fmt.Sprintf("%s/%s:%d", r.namespace, r.service, r.port), "--", "/usr/bin/env"}
	args = append(args, environ...)
	agent, err := filepath.Abs("bin/agent")
	if err != nil {
		return nil, err
	}
	args = append(args, agent, "--kind", r.kind, "--agent-name", r.name)
	cmd := exec.CommandContext(ctx, "bin/lab", args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &pod{cmd: cmd, done: make(chan struct{}), log: logFile}
	go func() {
		_ = cmd.Wait() // it ends when it is told to; why it ended otherwise stands in its log
		close(p.done)
	}()
	return p, nil
}

// stop ends the pods and waits until they are gone.
func (p *pod) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
}
