package suite

import (
	"runtime"
	"slices"
)

const (
	// young is an agent that is made while a clock is wrong, and once more when it is right again: routers connect anew for it.
	young = "young"
	// beyond the end of any certificate that is there.
	beyond = "+240h"
	// shortClock is the row that is part of the short form: the router of the serving cluster is among what jumps, and it takes the least time.
	shortClock = "clock-spoke-behind"
)

// clocks are faults of wall clocks: they jump, and jump back.
func clocks() []Scenario {
	var out []Scenario
	for _, c := range []struct{ name, what, offset string }{{"ahead", "an hour ahead", "+1h"}, {"behind", "an hour behind", "-1h"}} {
		out = append(out,
			jump("clock-hub-"+c.name, "hub "+c.what+" and restarted; then the CA and every leaf replaced by it",
				fault("clock {hub}/hub "+c.offset), fault("restart {hub}/hub"), []Step{rotateCA}, anew("{primary}")),
			jump("clock-spoke-"+c.name, "spoke and router of the serving cluster "+c.what+"; relay and spoke restarted",
				fault("clock {primary}/router "+c.offset), fault("clock {primary}/spoke "+c.offset), fault("crash {primary}/relay"), fault("restart {primary}/spoke"), anew("{primary}")),
			jump("clock-cluster-"+c.name, "everything in the hub's cluster "+c.what+", API server and etcd too; hub restarted", fault("clock {hub} "+c.offset), fault("restart {hub}/hub")))
	}
	open, own := &watch{of: "over connections that were open when the clock jumped"}, &watch{of: "for an agent of the own cluster"}
	return append(out,
		jump("clock-hub-far", "hub ten days ahead, beyond the end of every certificate, and restarted", fault("clock {hub}/hub "+beyond), fault("restart {hub}/hub")),
		Scenario{
			Name: "clock-client-far", Fault: "everything in the client's cluster ten days ahead, beyond the end of every certificate; then its router restarted",
			Group: "process", Hold: brief, Everywhere: true,
			Arrange: []Step{run("{client}", home, 1)},
			Inject: slices.Concat([]Step{open.begin(twin, "{client}")}, fault("clock {client} "+beyond), []Step{stay, open.end, restartRouter,
				own.begin(home, "{client}"), cutOff}),
			Heal: slices.Concat(heal, []Step{answersOver(far), own.end, withdraw("{client}", home)}),
		})
}

// jump is a clock that jumps, and jumps back, with what else happens meanwhile. It harms nothing, and a new agent is found afterwards.
func jump(name, what string, inject ...[]Step) Scenario {
	gone := []Step{withdraw("{primary}", young)}
	return Scenario{Name: name, Fault: what, Group: "control", Harmless: true, Hold: brief, Short: name == shortClock && runtime.GOARCH == "amd64", Inject: slices.Concat(inject...),
		Heal: slices.Concat(gone, heal, anew("{primary}"), gone)}
}

// anew runs an agent that was not there, and waits until the client's edge is answered for it.
func anew(role string) []Step { return []Step{run(role, young, 1), answers(young, role)} }
