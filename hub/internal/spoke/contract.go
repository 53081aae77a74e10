package spoke

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

// Findings is what the build says of its input; the engine implements it. All methods are cheap and safe for concurrent
// use, and answer from the last build.
type Findings interface {
	// SliceEntries are the entries of a slice that are rejected or conflict, at most one per resource, and the
	// generation of the slice that they refer to. False when no build has seen the slice yet.
	SliceEntries(slice types.NamespacedName) (entries []v1alpha1.SliceEntryStatus, generation int64, ok bool)
	// Spoke counts a spoke's accepted resources, those of them that conflict with another spoke's, and its rejected
	// entries; stale means that report and slices do not agree and what is known of it is kept.
	Spoke(name string) (exported, conflicts, rejected int, stale bool)
	// Limits names the namespaces that are so large that their requests take longer and in which the spoke declares
	// resources, and counts the spoke's resources of which not all places are used.
	Limits(name string) (large []string, cut int)
	// Overload says in what a spoke exceeds the limits of one spoke.
	Overload(name string) registry.Overload
	// Unacknowledged are the epochs that were lost by a restoration of the store, and that nobody has acknowledged: what only
	// they had is kept by every router.
	Unacknowledged() []string
	// Drained says whether every connected router has acknowledged that the spoke is draining.
	Drained(name string) bool
	// Changes is closed when any of this may have changed; ask for the next channel before reading.
	Changes() <-chan struct{}
}

// Withdrawer takes a spoke off the wire; the engine implements it.
type Withdrawer interface {
	// Withdraw takes the spoke out of every router's authorisation first and then out of every route, and returns
	// when the connected clients have acknowledged that, or with ctx's error. Called again it returns at once. A spoke
	// that was never on the wire is withdrawn already. By the time of the call the Spoke carries a deletionTimestamp.
	Withdraw(ctx context.Context, name string, uid types.UID) error
}
