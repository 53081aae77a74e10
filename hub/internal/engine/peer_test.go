package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

func (p *peer) options(node string) delta.ClientOptions {
	return delta.ClientOptions{
		Node:  &corev3.Node{Id: node},
		Types: []string{delta.ClusterType, delta.AssignmentType, delta.ExtensionType, delta.ScopeType},
		Held: func(typeURL string) map[string]string {
			p.mu.Lock()
			defer p.mu.Unlock()
			out := map[string]string{}
			for name, r := range p.held[typeURL] {
				out[name] = r.Version
			}
			return out
		},
		Apply: p.apply,
		Connected: func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.connected++
		},
		Disconnected: func(err error) {
			select {
			case p.failed <- err:
			default:
			}
		},
	}
}

func (p *peer) apply(ctx context.Context, u delta.Update) error {
	p.mu.Lock()
	hold, epoch, before := p.hold, p.epoch, p.before
	p.mu.Unlock()
	if before != nil {
		before()
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	told := delta.ParseEpoch(u.Identifier)
	incomplete := told.Incomplete
	told.Incomplete = nil
	if told.String() != epoch {
		return fmt.Errorf("epoch %q, want %q", u.Identifier, epoch)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.incomplete = incomplete
	if p.held[u.Type] == nil {
		p.held[u.Type] = map[string]delta.Resource{}
	}
	for _, r := range u.Upsert {
		p.held[u.Type][r.Name] = r
	}
	for _, name := range u.Remove {
		delete(p.held[u.Type], name)
	}
	select {
	case p.updated <- struct{}{}:
	default:
	}
	return nil
}

// eventually waits until the peer holds what cond wants; cond says what is missing.
func (p *peer) eventually(t testing.TB, cond func(held map[string]map[string]delta.Resource) string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		missing := cond(p.held)
		p.mu.Unlock()
		if missing == "" {
			return
		}
		select {
		case <-p.updated:
		case <-deadline:
			t.Fatalf("not in time: %s", missing)
		}
	}
}

// tables waits until exactly these tables are held.
func (p *peer) tables(t *testing.T, want ...string) {
	t.Helper()
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		got := slices.Sorted(maps.Keys(held[delta.ScopeType]))
		if !slices.Equal(got, want) {
			return fmt.Sprintf("tables %v, want %v", got, want)
		}
		return ""
	})
}

// order waits until an assignment lists these addresses, in the order of their priorities.
func (p *peer) order(t *testing.T, cluster string, want ...string) {
	t.Helper()
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		var got []string
		if r, ok := held[delta.AssignmentType][cluster]; ok {
			var a endpointv3.ClusterLoadAssignment
			if err := r.Body.UnmarshalTo(&a); err != nil {
				return err.Error()
			}
			for _, g := range a.GetEndpoints() {
				s := g.GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
				if h := g.GetLbEndpoints()[0].GetHealthStatus(); h != corev3.HealthStatus_UNKNOWN {
					s += " " + h.String()
				}
				got = append(got, s)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("assignment %s %v, want %v", cluster, got, want)
		}
		return ""
	})
}

// named waits until an assignment names these endpoints beside those that it lists.
func (p *peer) named(t *testing.T, cluster string, want ...string) {
	t.Helper()
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		var a endpointv3.ClusterLoadAssignment
		if err := held[delta.AssignmentType][cluster].Body.UnmarshalTo(&a); err != nil {
			return err.Error()
		}
		if got := slices.Sorted(maps.Keys(a.GetNamedEndpoints())); !slices.Equal(got, want) {
			return fmt.Sprintf("assignment %s names %v, want %v", cluster, got, want)
		}
		return ""
	})
}

// refused waits for the error with which the hub ends a stream.
func (p *peer) refused(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case err := <-p.failed:
			if err != nil && strings.Contains(err.Error(), want) {
				return
			}
		case <-deadline:
			t.Fatalf("the stream was not ended with %q", want)
		}
	}
}
