package spoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// Liveness is what the controller reads of Leases and reports; *liveness.Observer is it.
type Liveness interface {
	Get(spoke string) liveness.Knowledge
	Changed() <-chan struct{}
	Synced() <-chan struct{}
}

// Options of the controllers. All but the last group are required.
type Options struct {
	// Fleet is the trust domain.
	Fleet string
	// HubAddress is the hub's gRPC port as spokes reach it, host:port; APIServer and APICA its API server likewise.
	HubAddress string
	APIServer  string
	APICA      []byte
	// Bundle is the current trust bundle, PEM.
	Bundle func() []byte
	// Trust is what spokes have to use now.
	Trust func() identity.Trust
	// CA says what in the CA that is asked for cannot be used (empty: nothing), and when to ask again.
	CA         func() (unusable string, changed <-chan struct{})
	Liveness   Liveness
	Findings   Findings
	Withdrawer Withdrawer

	// Withdrawn notes that the Spoke with an identity is deleted, so that none inherits it. Nobody is told if nil.
	Withdrawn func(ctx context.Context, name, uid8 string) error
	// Built is closed when Findings are those of a build; until then what a Spoke's status says of them is left alone.
	// Nil: they always are.
	Built <-chan struct{}
	// WithdrawTimeout bounds how long a deletion waits for acknowledgements; 10 s when zero.
	WithdrawTimeout time.Duration
	// Workers is how many Spokes are reconciled at once; 8 when zero. A deletion holds one while it waits.
	Workers int
	Clock   clock.Clock
	// Recorder is the manager's when nil.
	Recorder events.EventRecorder
	// SkipNameValidation lets several managers of one process have the controllers, one after the other.
	SkipNameValidation bool
}

func (o *Options) complete(mgr manager.Manager) error {
	if err := identity.ValidateFleet(o.Fleet); err != nil {
		return err
	}
	if o.HubAddress == "" || o.APIServer == "" || o.Bundle == nil || o.Trust == nil || o.CA == nil || o.Liveness == nil || o.Findings == nil || o.Withdrawer == nil {
		return errors.New("spoke: HubAddress, APIServer, Bundle, Trust, CA, Liveness, Findings and Withdrawer are required")
	}
	if o.WithdrawTimeout == 0 {
		o.WithdrawTimeout = 10 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Recorder == nil {
		o.Recorder = mgr.GetEventRecorder("isthmus-hub")
	}
	return nil
}

// Setup adds the controllers of Spokes and of slices' status to the manager; they run on the leader.
func Setup(mgr manager.Manager, o Options) error {
	if err := o.complete(mgr); err != nil {
		return err
	}
	r := &reconciler{Options: o, client: mgr.GetClient(), direct: mgr.GetAPIReader()}
	if err := r.setup(mgr); err != nil {
		return fmt.Errorf("spoke controller: %w", err)
	}
	w := &sliceStatusWriter{findings: o.Findings, recorder: o.Recorder}
	if err := w.setup(mgr, controllerOptions(o)); err != nil {
		return fmt.Errorf("slice status writer: %w", err)
	}
	return nil
}

func controllerOptions(o Options) controller.Options {
	return controller.Options{MaxConcurrentReconciles: o.Workers, SkipNameValidation: &o.SkipNameValidation}
}

// CacheByObject narrows the manager's cache to what the hub makes itself, and to the Leases of spokes. By name, where the
// names are fixed: RBAC lets a ServiceAccount list and watch one name in all namespaces, and knows nothing of labels.
func CacheByObject() map[client.Object]cache.ByObject {
	named := func(name string) cache.ByObject {
		return cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", name)}
	}
	return map[client.Object]cache.ByObject{
		&corev1.Namespace{}:      {Label: labels.SelectorFromSet(labels.Set{managedByLabel: managedBy})},
		&corev1.Secret{}:         named(hubidentity.JoinSecretName),
		&corev1.ServiceAccount{}: named(objectName),
		&rbacv1.Role{}:           named(objectName),
		&rbacv1.RoleBinding{}:    named(objectName),
		&coordinationv1.Lease{}:  named(objectName),
	}
}
