package suite

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Scenario is one fault: how it comes, how it goes, and what may happen meanwhile.
//
// In commands, {client} is the cluster whose edge is asked, {primary} the one that serves it, {other} the one that serves
// when the primary cannot and where the bystander lives, {hub} the hub's.
type Scenario struct {
	Name  string
	Fault string // for the table
	Group string // process, control, data, agent, link: the short form runs one of each at least
	// Inject and Heal are what happens, in order.
	Inject, Heal []Step
	// After is what happens once the load has stopped: repairs by which the lab itself would break connections.
	After []Step
	// Hold is how long the fault lasts, Least how long at least, in the short form too: one that is over sooner nobody notices.
	Hold, Least time.Duration
	// Harmless faults are those of the control plane and those that are announced: no request fails, no stream is reset.
	Harmless bool
	// Retried: what may run twice is sent again until it is answered, so that none of it fails.
	Retried bool
	// Everywhere: the fault meets bystanders too.
	Everywhere bool
	// Load names the agent to load; empty is the common one. Arrange makes it ready.
	Load    string
	Arrange []Step
	// Rate of GETs and of POSTs per second; 0 is the common one.
	Rate int
	// Query is added to the loaded path.
	Query string
	// Attempts counts how often pods saw each request, and expects failures: the agent itself refuses.
	Attempts bool
	Short    bool
	// Figure: what it may cost is part of what the project promises; more rounds are run of it.
	Figure bool
}

// Step does something to the fleet while a scenario runs.
type Step func(ctx context.Context, s *stage) error

// fault is a step that runs a command of `bin/lab fault`.
func fault(command string) []Step {
	return []Step{func(ctx context.Context, s *stage) error { return s.fault(ctx, strings.Fields(s.expand(command))...) }}
}

// fault runs a command of `bin/lab fault`; the first of a scenario says when the fault came.
func (s *stage) fault(ctx context.Context, command ...string) error {
	at, err := s.fleet.Fault(ctx, command...)
	if s.injected.IsZero() {
		s.injected = at
	}
	return err
}

var heal = fault("heal")

const (
	brief = 5 * time.Second
	// long enough for a Lease to expire (10 s) and the hub to act on it
	long = 16 * time.Second
)

// figures are the scenarios whose costs the project promises.
var figures = []string{"router-kill", "router-freeze", "router-freeze-near", "router-term", "drain", "relay-kill", "hub-kill", "hub-upgrade", "ca-rotation", "cut-control", "black-hole", "bad-wan", "pod-kill"}

// Scenarios are all faults, in the order of the table.
func Scenarios() []Scenario {
	all := slices.Concat(processes(), nears(), pairs(), links(), agents(), stores(), expiries(), clocks())
	for i := range all {
		all[i].Figure = slices.Contains(figures, all[i].Name)
	}
	return all
}

func processes() []Scenario {
	held := func(name, what, process, group string, short bool) Scenario {
		return Scenario{Name: name, Fault: what, Group: group, Inject: fault("kill " + process), Heal: fault("restart " + process),
			Hold: brief, Harmless: group == "control", Short: short}
	}
	return []Scenario{
		held("router-kill", "router of the serving cluster: SIGKILL", "{primary}/router", "process", true),
		{Name: "router-freeze", Fault: "router of the serving cluster: SIGSTOP", Group: "process", Hold: brief, Short: true,
			Inject: freezeRouter(), Heal: thawRouter(), Least: 3 * brief / 5},
		{Name: "router-term", Fault: "router of the serving cluster: pod deleted (SIGTERM)", Group: "announced", Hold: brief,
			Inject: []Step{deletePods("{primary}", "isthmus-router")}},
		{Name: "drain", Fault: "serving cluster drained (its Spoke `Draining`), then taken back", Group: "announced", Harmless: true, Hold: brief,
			Inject: []Step{setState("{primary}", v1alpha1.SpokeDraining), drained, answersOver(twin)}, Heal: []Step{setState("{primary}", v1alpha1.SpokeActive)}},
		{Name: "relay-kill", Fault: "relay of the serving cluster: SIGKILL", Group: "control", Harmless: true, Hold: brief, Short: true,
			Arrange: []Step{relaysRun}, Inject: fault("crash {primary}/relay")},
		{Name: "relay-freeze", Fault: "relays of the client's and the serving cluster: SIGSTOP", Group: "control", Harmless: true, Hold: long,
			Inject: append(fault("stop {primary}/relay"), fault("stop {client}/relay")...), Heal: append(fault("cont {primary}/relay"), fault("cont {client}/relay")...)},
		held("relay-down", "relay's container of the serving cluster killed and kept down", "{primary}/relay", "process", false),
		held("hub-kill", "hub: SIGKILL, all replicas", "{hub}/hub", "control", true),
		{Name: "hub-leader-kill", Fault: "hub: SIGKILL of the leader", Group: "control", Harmless: true, Hold: brief, Inject: fault("restart {hub}/hub-leader")},
		{Name: "hub-freeze", Fault: "hub: SIGSTOP, all replicas", Group: "control", Harmless: true, Hold: long,
			Inject: fault("stop {hub}/hub"), Heal: fault("cont {hub}/hub")},
		{Name: "hub-upgrade", Fault: "hub: pods deleted (SIGTERM), as in an upgrade", Group: "control", Harmless: true, Hold: brief,
			Inject: []Step{deletePods("{hub}", "isthmus-hub")}},
		{Name: "ca-rotation", Fault: "the fleet's CA and every leaf replaced", Group: "control", Harmless: true, Inject: []Step{rotateCA}},
		held("spoke-kill", "spoke controller of the serving cluster: SIGKILL", "{primary}/spoke", "control", true),
		{Name: "spoke-freeze", Fault: "spoke controller of the serving cluster: SIGSTOP until its Lease has expired", Group: "control", Harmless: true, Hold: long,
			Inject: fault("stop {primary}/spoke"), Heal: fault("cont {primary}/spoke")},
		held("hub-apiserver-kill", "API server of the hub: SIGKILL", "{hub}/apiserver", "control", true),
		held("hub-etcd-kill", "etcd of the hub: SIGKILL", "{hub}/etcd", "control", false),
		held("spoke-apiserver-kill", "API server of a spoke: SIGKILL", "{other}/apiserver", "control", false),
		{Name: "relay-kill-unread", Fault: "relay of a cluster: SIGKILL, while that cluster's API server is dead", Group: "control", Harmless: true, Hold: brief, Short: true,
			Arrange: []Step{relaysRun}, Inject: append(fault("kill {other}/apiserver"), fault("crash {other}/relay")...), Heal: fault("restart {other}/apiserver")},
		{Name: "disk-full", Fault: "disk of the client's relay full, while an agent is added", Group: "control", Harmless: true, Hold: brief, Short: true,
			Inject: append(fault("fill-disk {client}/relay"), run("{other}", "fresh", 1), answersOver("fresh")),
			Heal:   append(fault("free-disk {client}/relay"), withdraw("{other}", "fresh"))},
		held("spoke-etcd-kill", "etcd of a spoke: SIGKILL", "{other}/etcd", "control", false),
	}
}

func links() []Scenario {
	return []Scenario{
		{Name: "cut-control", Fault: "control link of the client's cluster cut", Group: "control", Harmless: true, Hold: long, Short: true,
			Inject: fault("partition {client} hub"), Heal: heal},
		{Name: "cut-control-other", Fault: "control link of a serving cluster cut", Group: "control", Harmless: true, Hold: long,
			Inject: fault("partition {other} hub"), Heal: heal},
		{Name: "cut-data", Fault: "data path between client's and serving cluster cut", Group: "data", Hold: brief, Short: true,
			Inject: fault("partition {client} {primary} --link data"), Heal: heal},
		{Name: "cut-data-one-way", Fault: "data path cut one way, towards the serving cluster", Group: "data", Hold: brief,
			Inject: fault("partition {client} {primary} --link data --one-way"), Heal: heal},
		{Name: "cut-data-way-back", Fault: "data path cut one way, back from the serving cluster", Group: "data", Hold: brief,
			Inject: fault("partition {primary} {client} --link data --one-way"), Heal: heal},
		{Name: "cut-pair", Fault: "client's and serving cluster cut from each other, control and data", Group: "data", Hold: long,
			Inject: fault("partition {client} {primary}"), Heal: heal},
		{Name: "black-hole", Fault: "serving cluster black-holed: nothing in or out", Group: "data", Hold: long,
			Inject: append(fault("partition {client} {primary}"), fault("partition {other} {primary}")...), Heal: heal},
		{Name: "slow", Fault: "300 ms RTT between client's and serving cluster", Group: "link", Harmless: true, Hold: brief, Short: true,
			Inject: fault("delay {client} {primary} --rtt 300ms"), Heal: heal},
		{Name: "slow-narrow", Fault: "300 ms RTT and 2 Mbit/s", Group: "link", Harmless: true, Hold: brief,
			Inject: fault("delay {client} {primary} --rtt 300ms --rate 2"), Heal: heal},
		{Name: "bad-wan", Fault: "300 ms RTT, 1 % loss, 10 Mbit/s, a 20 MB upload beside", Group: "link", Hold: 2 * time.Second,
			Inject: append(fault("delay {client} {primary} --rtt 300ms --loss 1 --rate 10"), upload), Heal: heal},
	}
}

func agents() []Scenario {
	return []Scenario{
		{Name: "pod-kill", Fault: "one of two pods killed while listed", Group: "agent", Hold: brief, Load: "pair", Short: true, Retried: true,
			Arrange: []Step{withdraw("{primary}", "pair"), run("{primary}", "pair", 2), run("{other}", "pair", 1)}, Inject: []Step{killPod("pair")}},
		{Name: "agent-moved", Fault: "agent moved to another cluster", Group: "agent", Harmless: true, Hold: brief, Load: "mover", Short: true,
			Arrange: []Step{run("{primary}", "mover", 1)}, Inject: []Step{run("{other}", "mover", 1), hasPlace("mover", "{other}"), withdraw("{primary}", "mover")}},
		{Name: "saturated", Fault: "all pods of an agent saturated", Group: "agent", Hold: brief, Load: "busy", Query: "?delay=200ms", Rate: 40, Attempts: true, Short: true,
			Arrange: []Step{run("{primary}", "busy", 1, "--limit", "2"), run("{other}", "busy", 1, "--limit", "2")}},
	}
}
