package spoke

import (
	"log/slog"
	"net"
	"testing"

	"github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// enrol does what a spoke does with its join values, against a real Identity service.
func enrol(f *fixture, t *testing.T, v values) {
	service, err := hubidentity.NewService(f.ctx, hubidentity.Options{
		Client: api, Namespace: "enrol-hub", Fleet: v.Fleet, APIServer: v.Hub.APIServer, Log: slog.New(slog.DiscardHandler), Clock: f.clock,
	})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	f.Expect(err).NotTo(gomega.HaveOccurred())
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(service.Source()))))
	identitypb.RegisterIdentityServer(srv, service)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(srv.Stop)
	creds, err := identity.Client{Address: ln.Addr().String(), Fleet: v.Fleet, Now: f.clock.Now}.Enroll(f.ctx, service.Bundle(), v.Spoke.Name, v.Join.Token)
	f.Expect(err).NotTo(gomega.HaveOccurred())
	f.Expect(creds.Namespace).To(gomega.Equal("isthmus-spoke-" + v.Spoke.Name))
}
