package suite

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
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
	e := &expiry{open: watch{of: "over connections that were open when the certificates ended"}, home: watch{of: "for an agent of the own cluster"}}
	return []Scenario{{
		Name: "certificates-end", Fault: "hub dead until every certificate has ended; then the client's router restarted, and at last the hub", Group: "process", Hold: brief, Everywhere: true,
		Arrange: []Step{run("{client}", home, 1), e.shorten, rotateCA},
		Inject: slices.Concat(fault("kill {hub}/hub"), []Step{e.open.begin(twin, "{client}"), haveEnded, stay, e.open.end},
			[]Step{restartRouter, e.home.begin(home, "{client}"), cutOff}),
		Heal:  slices.Concat(fault("restart {hub}/hub"), []Step{goodFor(0), answersOver(far), e.home.end}),
		After: []Step{e.restore, goodFor(2 * shortLife), withdraw("{client}", home)},
	}}
}

// expiry knows what the hub's arguments were, and asks all the time.
type expiry struct {
	open, home watch
	before     []string
}

// shorten has the hub give short-lived certificates; the rotation that follows has everybody take one.
func (e *expiry) shorten(ctx context.Context, s *stage) error {
	return s.hubArguments(ctx, func(args []string) []string {
		e.before = args
		return append(slices.Clone(args), "--certificate-lifetime="+shortLife.String())
	})
}

// restore has the hub give what it gave before; spokes take it at their next renewal.
func (e *expiry) restore(ctx context.Context, s *stage) error {
	if e.before == nil {
		return nil
	}
	return s.hubArguments(ctx, func([]string) []string { return e.before })
}

// hubArguments changes the arguments of the hub, and waits until no replica runs with others.
func (s *stage) hubArguments(ctx context.Context, change func([]string) []string) error {
	hub := s.fleet.Hub.client
	d := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: system, Name: "isthmus-hub"}
	if err := hub.Get(ctx, key, d); err != nil {
		return err
	}
	before := d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Args = change(before.Spec.Template.Spec.Containers[0].Args)
	if err := hub.Patch(ctx, d, client.MergeFrom(before)); err != nil {
		return err
	}
	return s.await(ctx, "the hub with other arguments", func(ctx context.Context) error {
		if err := hub.Get(ctx, key, d); err != nil {
			return err
		}
		if st := d.Status; st.ObservedGeneration < d.Generation || st.UpdatedReplicas != *d.Spec.Replicas || st.Replicas != *d.Spec.Replicas || st.ReadyReplicas != *d.Spec.Replicas {
			return fmt.Errorf("%d replicas, %d of them new, %d ready", st.Replicas, st.UpdatedReplicas, st.ReadyReplicas)
		}
		return nil
	})
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
