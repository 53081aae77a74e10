// Package identity holds what hub and spokes share about identities: SPIFFE IDs, hot-reloaded TLS configurations, and
// the client of the hub's Identity service.
//
// A Source holds the credentials of one process. Whoever obtains new ones calls Set; every new TLS handshake uses them,
// nothing is restarted:
//
//	src := identity.NewSource()
//	creds, err := identity.Client{Address: hub, Fleet: fleet}.Enroll(ctx, bundlePEM, "eu", token)
//	err = src.Set(creds.Material)
//	conn, err := grpc.NewClient(hub, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(src, fleet))))
//
// The hub serves with ServerTLS and learns its peer by PeerID: from the verified certificate, never from a claim in a
// message. A leaf carries exactly one URI SAN; with two it is refused, because two readers could pick different ones.
//
// The package knows no Kubernetes client, writes nothing, and takes its clock where time decides.
package identity
