package suite

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// shortLife of certificates: short enough to wait for its end, and long enough that a busy machine renews them in time.
	shortLife = 90 * time.Second
	// home is an agent beside the client.
	home = "home"
)

// expiries are faults of certificates that end while no hub is there to renew them.
func expiries() []Scenario {
	open, own := &watch{of: "over connections that were open when the certificates ended"}, &watch{of: "for an agent of the own cluster"}
	hub := &otherHub{argument: "--certificate-lifetime=" + shortLife.String()}
	return []Scenario{{
		Name: "certificates-end", Fault: "hub dead until every certificate has ended; then the client's router restarted, and at last the hub", Group: "process", Hold: brief, Everywhere: true,
		// The rotation has everybody take a certificate of the short life; when the hub is as it was, spokes take another at their next renewal.
		Arrange: []Step{run("{client}", home, 1), hub.begin, rotateCA},
		Inject: slices.Concat(fault("kill {hub}/hub"), []Step{open.begin(twin, "{client}"), haveEnded, stay, open.end},
			[]Step{restartRouter, own.begin(home, "{client}"), cutOff}),
		Heal:  slices.Concat(fault("restart {hub}/hub"), []Step{goodFor(0), answersOver(far), own.end}),
		After: []Step{hub.end, goodFor(2 * shortLife), withdraw("{client}", home)},
	}}
}

// haveEnded waits until no spoke has a certificate that is good.
func haveEnded(ctx context.Context, s *stage) error {
	return s.awaitFor(ctx, shortLife+settleTimeout, "the end of all certificates", func(ctx context.Context) error {
		return s.leaves(ctx, func(leaf *x509.Certificate) error {
			if left := time.Until(leaf.NotAfter); left > 0 {
				return fmt.Errorf("that of %s is good for %s more", leaf.DNSNames, left)
			}
			return nil
		})
	})
}

// stay lets requests go on for a while.
func stay(ctx context.Context, _ *stage) error {
	pause(ctx, brief)
	return ctx.Err()
}

// restartRouter makes the client's router connect anew: connections that are open do not end with a certificate. What the row says of
// the last error counts from here.
func restartRouter(ctx context.Context, s *stage) error {
	s.injected = time.Time{}
	if err := s.fault(ctx, "restart", s.client.Name+"/router"); err != nil {
		return err
	}
	return s.await(ctx, home+" at "+s.client.Name, func(ctx context.Context) error { return s.served(ctx, s.client, home, s.client.Name) })
}

// cutOff checks that a router whose certificate has ended is not let in by others.
func cutOff(ctx context.Context, s *stage) error {
	if _, err := s.ask(ctx, s.client, far); err == nil {
		return errors.New("a router whose certificate has ended is let in elsewhere")
	}
	return nil
}

// goodFor waits until every spoke has a certificate that is good for so long at least.
func goodFor(least time.Duration) Step {
	return func(ctx context.Context, s *stage) error {
		return s.await(ctx, "new certificates", func(ctx context.Context) error {
			return s.leaves(ctx, func(leaf *x509.Certificate) error {
				if left := time.Until(leaf.NotAfter); left <= least {
					return fmt.Errorf("that of %s is good for %s", leaf.DNSNames, left)
				}
				return nil
			})
		})
	}
}

// leaves judges the certificate of every spoke.
func (s *stage) leaves(ctx context.Context, judge func(*x509.Certificate) error) error {
	for _, c := range s.fleet.Clusters {
		var kept corev1.Secret
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: system, Name: "isthmus-identity"}, &kept); err != nil {
			return err
		}
		block, _ := pem.Decode(kept.Data["tls.crt"])
		if block == nil {
			return fmt.Errorf("no certificate of %s", c.Name)
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err == nil {
			err = judge(leaf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
