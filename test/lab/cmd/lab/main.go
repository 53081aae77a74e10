// Command lab starts, shows and ends fleets of local clusters with Isthmus on them. See docs/lab.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-dev/isthmus/test/lab"
)

var version = "devel"

func main() {
	lab.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c := root()
	c.SetArgs(clockArgs(os.Args[1:]))
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	var name string
	c := &cobra.Command{Use: "lab", Short: "Real Kubernetes control planes with Isthmus, without containers", Version: version, SilenceUsage: true, SilenceErrors: true}
	c.PersistentFlags().StringVar(&name, "name", "", "name of the lab (default $ISTHMUS_LAB, else \"default\")")
	get := func() string {
		if name == "" {
			return os.Getenv("ISTHMUS_LAB")
		}
		return name
	}
	c.AddCommand(up(get), env(get), execCommand(get), run(get), fault(get), snapshot(get), join(get), status(get), down(get))
	return c
}

func up(name func() string) *cobra.Command {
	o := lab.Options{Progress: os.Stderr}
	c := &cobra.Command{
		Use: "up", Short: "Start a lab; returns when every Spoke is Available and every router ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Name = name()
			began := time.Now()
			l, err := lab.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "lab %s is up after %.1f s; `bin/lab exec --name %s -- kubectl get spokes`\n", l.Name, time.Since(began).Seconds(), l.Name)
			return nil
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Clusters, "clusters", []string{"eu", "us", "ap"}, "names of the spokes' clusters")
	f.StringVar(&o.HubCluster, "hub-cluster", "", "cluster that the hub lives in (default one of its own, named hub)")
	f.DurationVar(&o.RTT, "rtt", 0, "round-trip time between clusters (default none)")
	f.StringVar(&o.Gateway, "gateway", "", "Gateway API implementation of every spoke's cluster: envoy-gateway or traefik (need make tools-gateway, tools-traefik; default none)")
	f.StringSliceVar(&o.CertificateNamespaces, "certificate-namespaces", nil, "namespaces that are made on the hub, in which it may read certificates of Gateways")
	f.BoolVar(&o.Faults, "faults", false, "link clusters so that fault partition, heal and delay work (--rtt does, too)")
	f.IntVar(&o.HubReplicas, "hub-replicas", 0, "replicas of the hub (default as the chart)")
	f.IntVar(&o.RouterReplicas, "router-replicas", 0, "replicas of each router (default as the chart)")
	f.BoolVar(&o.Bare, "bare", false, "control planes only: no CRDs, no hub, no spokes")
	f.DurationVar(&o.UpdateDelay, "update-delay", 0, "time until a changed Secret or ConfigMap shows in volumes (a real kubelet: 60-90s)")
	return c
}

func env(name func() string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "env", Short: "Print the lab's kubeconfigs and URLs, as shell exports or JSON", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			e, err := l.Env()
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(e)
			}
			fmt.Printf("export ISTHMUS_LAB=%s KUBECONFIG=%s HUB_XDS=%s\n", l.Name, e.Hub.Kubeconfig, e.Hub.XDS)
			for _, cl := range e.Clusters {
				v := strings.ToUpper(strings.ReplaceAll(cl.Name, "-", "_"))
				fmt.Printf("export KUBECONFIG_%s=%s EDGE_%s=%s EASTWEST_%s=%s\n", v, cl.Kubeconfig, v, cl.Edge, v, cl.Eastwest)
				if cl.Gateway != "" {
					fmt.Printf("export GATEWAY_%s=%s\n", v, cl.Gateway)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func execCommand(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "exec -- CMD [ARG...]", Short: "Run a command in the lab's network, with KUBECONFIG of the hub", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			return l.Exec(args)
		},
	}
}

func run(name func() string) *cobra.Command {
	o := lab.RunOptions{Stdout: os.Stdout, Stderr: os.Stderr}
	var service string
	c := &cobra.Command{
		Use: "run --cluster C --service NAMESPACE/SERVICE:PORT -- CMD [ARG...]", Args: cobra.MinimumNArgs(1),
		Short: "Run a command as the pods of a Service until it is stopped (POD_IP and PORT in its environment)",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			if o.Namespace, o.Service, o.Port, err = parseService(service); err != nil {
				return err
			}
			o.Command = args
			code, err := l.Run(cmd.Context(), o)
			if err == nil && code != 0 {
				os.Exit(code)
			}
			return err
		},
	}
	c.Flags().StringVar(&o.Cluster, "cluster", "", "cluster to run in")
	c.Flags().StringVar(&service, "service", "", "NAMESPACE/SERVICE:PORT")
	c.Flags().IntVar(&o.Replicas, "replicas", 1, "number of pods")
	_ = c.MarkFlagRequired("cluster")
	_ = c.MarkFlagRequired("service")
	return c
}

func parseService(s string) (ns, name string, port int, err error) {
	left, right, ok := strings.Cut(s, ":")
	ns, name, slash := strings.Cut(left, "/")
	if _, scanErr := fmt.Sscanf(right, "%d", &port); !ok || !slash || ns == "" || name == "" || scanErr != nil || port < 1 || port > 65535 || fmt.Sprint(port) != right {
		return "", "", 0, fmt.Errorf("--service %q: use NAMESPACE/SERVICE:PORT, as in demo/agent-hello:8000", s)
	}
	return ns, name, port, nil
}

func status(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "List the lab's processes with their log files", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				if others := lab.Names(); len(others) > 0 {
					return fmt.Errorf("%w; labs with a directory: %v", err, others)
				}
				return err
			}
			rows, err := l.Status(cmd.Context())
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "CLUSTER\tPROCESS\tPHASE\tREADY\tPID\tRESTARTS\tLOG")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Cluster, r.Process, r.Phase, r.Ready, r.PID, r.Restarts, r.Log)
			}
			_ = w.Flush()
			return err
		},
	}
}

func down(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the lab and leave nothing behind", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lab.Down(cmd.Context(), name()) },
	}
}
