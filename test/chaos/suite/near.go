package suite

// nearTimeout is how long a fleet whose links are good may wait for the answer to a ping: with 200 ms between two of them, a
// router that is frozen is noticed within 1.5 s (docs/decisions/0019).
const nearTimeout = "1200ms"

// nears are faults of a fleet whose links are good and whose hub is told so.
func nears() []Scenario {
	hub := &otherHub{argument: "--keepalive-timeout=" + nearTimeout}
	return []Scenario{{
		Name: "router-freeze-near", Fault: "router of the serving cluster: SIGSTOP; links are good, and `keepalive.timeout` is " + nearTimeout, Group: "process", Hold: brief,
		// What the client's router is told of an agent that is made then, it is told after the clusters with their new timeout.
		Arrange: []Step{hub.begin, run("{other}", "fresh", 1), answersOver("fresh"), withdraw("{other}", "fresh")},
		Inject:  freezeRouter(), Heal: thawRouter(), After: []Step{hub.end},
	}}
}

func freezeRouter() []Step {
	return append(fault("stop {primary}/envoy"), fault("stop {primary}/relay")...)
}

func thawRouter() []Step {
	return append(fault("cont {primary}/envoy"), fault("cont {primary}/relay")...)
}
