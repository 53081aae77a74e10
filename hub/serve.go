package hub

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// everywhere is a runnable of every replica.
type everywhere func(context.Context) error

var _ manager.LeaderElectionRunnable = everywhere(nil)

func (f everywhere) Start(ctx context.Context) error { return f(ctx) }
func (f everywhere) NeedLeaderElection() bool        { return false }

// grpcServer serves Identity and ADS over mutual TLS; only enrolment comes without a certificate.
func grpcServer(source *identity.Source, ids identitypb.IdentityServer, xds *delta.Server) *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity.ServerTLS(source))),
		grpc.MaxRecvMsgSize(delta.MaxMessageBytes), // a client that resumes names all that it holds
		grpc.MaxConcurrentStreams(100),             // of one connection; a relay has one, a controller two
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	identitypb.RegisterIdentityServer(s, ids)
	xds.Register(s)
	return s
}

// serveGRPC serves until ctx ends. Streams never end by themselves, so nothing waits for them: clients resume elsewhere.
func serveGRPC(l net.Listener, s *grpc.Server) everywhere {
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, s.Stop)
		defer stop()
		if err := s.Serve(l); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	}
}

func serveHTTP(l net.Listener, h http.Handler) everywhere {
	return func(ctx context.Context) error {
		s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
		stop := context.AfterFunc(ctx, func() { _ = s.Close() })
		defer stop()
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
