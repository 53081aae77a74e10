package spoke

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
	"github.com/isthmus-dev/isthmus/spoke/internal/hubtest"
)

func TestARouterSaysWhenItsCertificateEnds(t *testing.T) {
	src := identity.NewSource()
	metric := expiry(src)
	if v := testutil.ToFloat64(metric); v != 0 {
		t.Errorf("%v before there is a certificate, want 0", v)
	}
	hub, err := hubtest.NewHub(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	hub.Answer = func(identity.ID) (*identitypb.Credentials, error) {
		return &identitypb.Credentials{ApiServer: "https://hub.test", ApiToken: "t", ApiTokenExpires: timestamppb.Now(), Namespace: "isthmus-spoke-eu"}, nil
	}
	if err := hub.Serve(); err != nil {
		t.Fatal(err)
	}
	defer hub.Stop()
	hub.Admit("eu", "0123abcd", "right")
	c, err := identity.Client{Address: hub.Address(), Fleet: hubtest.Fleet}.Enroll(t.Context(), hub.Bundle(), "eu", "right")
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Set(c.Material); err != nil {
		t.Fatal(err)
	}
	leaf, _ := src.Leaf()
	if v := testutil.ToFloat64(metric); v != float64(leaf.NotAfter.Unix()) || !leaf.NotAfter.After(time.Now()) {
		t.Errorf("%v, the certificate ends at %s", v, leaf.NotAfter)
	}
}
