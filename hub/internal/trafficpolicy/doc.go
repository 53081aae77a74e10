// Package trafficpolicy writes the status of TrafficPolicies: whether a policy is accepted, whether it is enforced as it
// stands, and whether all spokes and regions that it names exist. It runs on the leader.
//
// It decides nothing: which policy is in force is federate's answer, told by the last build of the engine. It may not
// import Envoy, registry or compile, and writes nothing but the status and Events.
package trafficpolicy
