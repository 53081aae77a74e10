package daemon

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// hubLease is the hub's leader election.
const hubLease = "isthmus-hub"

// leader is the pod of the hub that holds the leadership now.
func (c *cluster) leader(ctx context.Context) (string, error) {
	lease, err := c.plane.Client.CoordinationV1().Leases(systemNamespace).Get(ctx, hubLease, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("who leads the hub in %s: %w", c.plan.Name, err)
	}
	// controller-runtime's identity: the host name, which is the pod's, and a UUID.
	pod, _, _ := strings.Cut(ptr.Deref(lease.Spec.HolderIdentity, ""), "_")
	if pod == "" {
		return "", fmt.Errorf("nobody leads the hub in %s", c.plan.Name)
	}
	return pod, nil
}
