// Package identity is the hub's certificate authority and its Identity service: Enroll, Renew, and the hub's own leaf.
//
//	ids, err := identity.NewService(ctx, identity.Options{
//		Client: uncached, Namespace: "isthmus-system", Fleet: fleet, APIServer: url, APICA: ca,
//		Recorder: mgr.GetEventRecorder("isthmus-hub"), Registerer: metrics.Registry, Log: log,
//	})
//	err = mgr.Add(ids) // every replica: follows the CA's Secret and renews the hub's leaf
//	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(sharedidentity.ServerTLS(ids.Source()))))
//	identitypb.RegisterIdentityServer(srv, ids)
//
// Any replica serves any call: whatever must outlast a call is in Kubernetes objects. A join token is consumed by an
// update of its Secret under the resourceVersion at which it was checked, so that of two replicas one fails.
//
// The CA lives in Secret isthmus-ca, made when it is absent, or brought (cert-manager writes the same keys). To replace
// it without a cut: put the new certificate beside the old one in ca.crt, wait until every spoke has renewed, then replace
// tls.crt and tls.key, wait again, and take the old one out. A Secret that does not work, or whose new signer nobody
// trusts yet, is reported and the previous CA stays in use.
//
// The room writes the CA's Secret, the marks of enrolment and of the newest certificate shown on ServiceAccounts, the identity in a Spoke's
// status when it joins, and the end of join Secrets; nothing else. It
// knows neither xDS nor routing.
package identity
