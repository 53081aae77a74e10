// Package apply puts what the hub programs into this cluster, and tells the hub what became of it.
//
// An Applier follows two API servers. On the hub: the GatewayPrograms of this spoke, their GatewayProgramSet, and the Secrets
// that hold its certificates. In the own cluster, in one namespace: Gateways, HTTPRoutes, GRPCRoutes and Secrets, and the
// cluster's GatewayClasses. It writes by server-side apply under a field manager of its own. The Applier lives as long as the
// replica leads; Follow feeds it for the length of one session with the hub. Without a hub it keeps what there is true.
//
// Three rules hold whatever happens:
//   - An object is written only if it is missing, was made here, or is labelled for the program by hand.
//   - An object is removed only if it was made here, no program names it, and the programs are complete by the digest of a
//     hub whose epoch is acknowledged. A hub that is empty, half read, restored elsewhere or gone removes nothing.
//   - Whatever one program lacks (a certificate, a definition, the API server's consent) holds up that program alone.
//
// The room reads Envoy's configuration nowhere and knows no Gateway implementation.
package apply
