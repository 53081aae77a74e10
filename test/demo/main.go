package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	name string
	rtt  string
	once bool
	fast bool
	env  string // set for the inner stage: the file with the lab's environment
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "demo", "name of the lab")
	flag.StringVar(&o.rtt, "rtt", "80ms", "round trip between clusters")
	flag.BoolVar(&o.once, "once", false, "end after the show; the exit status is its success")
	flag.BoolVar(&o.fast, "fast", false, "without Gateways: the clusters run no Envoy Gateway, and start in half of the time")
	flag.StringVar(&o.env, "inside", "", "for the program's own use: run the show in the lab of this environment file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	stage := outer
	if o.env != "" {
		stage = inner
	}
	err := stage(ctx, o)
	if ctx.Err() != nil && !o.once {
		return // Ctrl-C is how the demo ends
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// outer starts the lab, runs the show inside it and takes it down.
func outer(ctx context.Context, o options) (err error) {
	for _, binary := range []string{"lab", "hub", "spoke", "isthmus", "agent"} {
		if _, err := os.Stat(filepath.Join("bin", binary)); err != nil {
			return fmt.Errorf("bin/%s is missing: run `make demo` in the root of the repository", binary)
		}
	}
	if _, err := kubectlPath(); err != nil {
		return fmt.Errorf("%w: run `make tools`", err)
	}
	work := filepath.Join("bin", "results", o.name)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	up := []string{"up", "--name", o.name, "--clusters", "eu,us,ap", "--hub-cluster", "eu", "--rtt", o.rtt}
	runs := "real API servers, a real Envoy each"
	if !o.fast {
		if _, err := os.Stat("bin/tools/envoy-gateway"); err != nil {
			return errors.New("bin/tools/envoy-gateway is missing: run `make demo`, or go without Gateways: `make demo ARGS=--fast`")
		}
		up, runs = append(up, "--gateway", "envoy-gateway"), "real API servers, a real Envoy and a real Envoy Gateway each"
	}
	heading("Three clusters, %s apart", o.rtt)
	began := time.Now()
	defer func() { err = errors.Join(err, down(ctx, o.name)) }()
	if err := command(ctx, "bin/lab", up...).Run(); err != nil {
		return fmt.Errorf("lab up: %w", err)
	}
	note("up in %s: %s, hub and spokes installed from their charts; the hub lives in eu", time.Since(began).Round(100*time.Millisecond), runs)
	env, err := exec.CommandContext(ctx, "bin/lab", "env", "--name", o.name, "--json").Output()
	if err != nil {
		return fmt.Errorf("lab env: %w", withStderr(err))
	}
	file := filepath.Join(work, "env.json")
	if err := os.WriteFile(file, env, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"exec", "--name", o.name, "--", self, "--name", o.name, "--inside", file}
	if o.once {
		args = append(args, "--once")
	}
	if o.fast {
		args = append(args, "--fast")
	}
	if err := command(ctx, "bin/lab", args...).Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the show failed; logs: %s", work)
	}
	return nil
}

// down takes the lab away, also after Ctrl-C, and in a process group of its own so that a second one does not cut it.
func down(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	note("taking the lab down")
	cmd := command(ctx, "bin/lab", "down", "--name", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	return nil
}

// command is a child that shares our output and is asked to end, not killed, when the context ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

func heading(format string, args ...any) { fmt.Printf("\n\033[1m== "+format+"\033[0m\n", args...) }

func note(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }
