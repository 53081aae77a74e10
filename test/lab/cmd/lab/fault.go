package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-dev/isthmus/test/lab"
)

func fault(name func() string) *cobra.Command {
	c := &cobra.Command{
		Use: "fault kill|crash|stop|cont|term|restart|fill-disk|free-disk CLUSTER/PROCESS", Args: cobra.ExactArgs(2),
		Short: "Break a process, a link or a clock (see the commands below)",
		Long: "Processes: hub, hub-leader, spoke, router, relay, envoy, apiserver, etcd, controller-manager. kill ends one and keeps it\n" +
			"down until restart; restart ends it and starts it again at once; stop, cont and term are the signals. router means\n" +
			"both containers of the router's pod, hub-leader the replica that leads. fill-disk leaves no space on the volumes that a\n" +
			"process writes to (relay), until free-disk. Other pods: CLUSTER/NAMESPACE/POD/CONTAINER.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			at, acted, err := l.Fault(cmd.Context(), args[0], args[1])
			return said(args[0], at, acted, err)
		},
	}
	c.AddCommand(partition(name), heal(name), delay(name), clock(name))
	return c
}

func snapshot(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot save NAME|restore NAME|empty", Args: cobra.RangeArgs(1, 2),
		Short: "Copy what the hub's etcd holds, put a copy back, or take away what Isthmus keeps there; its control plane is down meanwhile",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (args[0] == "empty") != (len(args) == 1) {
				return errors.New("use save NAME, restore NAME or empty")
			}
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			began := time.Now()
			acted, err := l.Snapshot(cmd.Context(), args[0], strings.Join(args[1:], ""))
			return said("snapshot "+args[0], began, acted, err)
		},
	}
}

func join(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "join CLUSTER", Args: cobra.ExactArgs(1),
		Short: "Register a cluster's Spoke at the hub again and upgrade its chart with its new values; returns when it is Available",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			began := time.Now()
			acted, err := l.Join(cmd.Context(), args[0])
			return said("joined", began, acted, err)
		},
	}
}

// said prints what was done to what, and since when: this command's own start takes longer than many a fault is to last.
func said(what string, began time.Time, acted []string, err error) error {
	for _, a := range acted {
		fmt.Println(what, a, began.Format(time.RFC3339Nano))
	}
	return err
}

func partition(name func() string) *cobra.Command {
	var cut lab.Cut
	c := &cobra.Command{
		Use: "partition FROM TO", Args: cobra.ExactArgs(2),
		Short: "Lose all packets between two ends: hub, CLUSTER or CLUSTER:PORT",
		Long: "hub means the hub's API server and gRPC port: `partition us hub` cuts the control link of us, `partition us eu --link data`\n" +
			"what their routers say to each other. Cuts add up until heal. What a cut loses is lost in silence, as in a black hole.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			cut.From, cut.To = args[0], args[1]
			began := time.Now()
			acted, err := l.Partition(cmd.Context(), cut)
			return said("cut", began, acted, err)
		},
	}
	c.Flags().StringVar(&cut.Link, "link", "all", "of two clusters: all, control (to the hub) or data (router to router)")
	c.Flags().BoolVar(&cut.OneWay, "one-way", false, "lose only what travels from FROM to TO")
	return c
}

func heal(name func() string) *cobra.Command {
	return &cobra.Command{
		Use: "heal [CLUSTER CLUSTER]", Short: "Mend the link of two clusters, or every link and every clock",
		Args: cobra.MatchAll(cobra.MaximumNArgs(2), func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fmt.Errorf("heal takes two clusters, or none for every link and clock")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			args = append(args, "", "")
			began := time.Now()
			acted, err := l.Heal(cmd.Context(), args[0], args[1])
			return said("healed", began, acted, err)
		},
	}
}

func delay(name func() string) *cobra.Command {
	var slow lab.Slow
	c := &cobra.Command{
		Use: "delay FROM TO", Short: "Slow the link of two clusters: round-trip time, loss, rate", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Attach(name())
			if err != nil {
				return err
			}
			slow.From, slow.To = args[0], args[1]
			began := time.Now()
			acted, err := l.Delay(cmd.Context(), slow)
			return said("slowed", began, acted, err)
		},
	}
	f := c.Flags()
	f.DurationVar(&slow.RTT, "rtt", 0, "round-trip time beside the lab's own; half of it in each direction")
	f.Float64Var(&slow.Loss, "loss", 0, "percent of the packets that are lost, in each direction")
	f.Float64Var(&slow.Rate, "rate", 0, "Mbit/s in each direction (default no limit)")
	f.BoolVar(&slow.OneWay, "one-way", false, "only what travels from the first to the second")
	return c
}
