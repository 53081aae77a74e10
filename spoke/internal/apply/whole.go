package apply

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
)

const (
	// EpochConfigMap holds, in the applier's namespace, the hub's epoch within which things are removed. It is kept in this
	// cluster because a hub that comes back empty has lost what it was told.
	EpochConfigMap = "isthmus-programs"
	epochKey       = "acknowledgedEpoch"
	// newestKey is of the newest set within that epoch that things were removed by: "<UID>/<generation>".
	newestKey = "newestSet"
	// AcknowledgeAnnotation of a GatewayProgramSet names the epoch that is to be acknowledged although things would go.
	AcknowledgeAnnotation = "isthmus.dev/acknowledge-epoch"
	// incompleteGrace is how long programs and their set may disagree before it is said: each change of one passes it.
	incompleteGrace = 5 * time.Second
)

// epoch is the acknowledged one, as far as it is known.
type epoch struct {
	known  bool
	value  string
	newest string
}

// whole judges the programs together: the epoch, what may be removed, and the set's status.
func (a *Applier) whole(ctx context.Context) (time.Duration, error) {
	programs, heard := a.state.allPrograms()
	set := a.state.programSet()
	if !heard || !a.state.clusterKnown() {
		return 0, nil
	}
	acknowledged, err := a.acknowledged(ctx)
	if err != nil {
		return 0, err
	}
	if set == nil {
		a.opts.Metrics.stale.Set(1)
		return 0, nil // nobody to tell; nothing goes
	}
	surplus, made := a.surplus(programs)
	complete := agrees(set, programs)
	if acknowledged != set.Spec.Epoch {
		first := acknowledged == "" && made == 0
		if first || (complete && len(surplus) == 0) || set.Annotations[AcknowledgeAnnotation] == set.Spec.Epoch {
			if err := a.acknowledge(ctx, set.Spec.Epoch); err != nil {
				return 0, err
			}
			acknowledged = set.Spec.Epoch
		}
	}
	var trouble error
	behind := a.behind(set)
	may := complete && acknowledged == set.Spec.Epoch && !behind
	if may {
		if trouble = a.note(ctx, set); trouble == nil {
			trouble = a.remove(ctx, surplus)
		}
	}
	again, err := a.reportSet(ctx, set, judged{acknowledged: acknowledged, complete: complete, behind: behind, removed: may && trouble == nil, surplus: len(surplus)})
	if trouble != nil {
		err = trouble
	}
	return again, err
}

// judged is what is said of the set.
type judged struct {
	acknowledged     string
	complete, behind bool
	removed          bool // what it does not name
	surplus          int
}

// behind says whether the set is an earlier state of one that things were removed by. The hub's store was restored from a backup, or an
// API server of the hub's reads late: the first ends with another epoch, the second by itself.
func (a *Applier) behind(set *v1alpha1.GatewayProgramSet) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	uid, text, _ := strings.Cut(a.epoch.newest, "/")
	newest, err := strconv.ParseInt(text, 10, 64)
	return err == nil && uid == string(set.UID) && set.Spec.Epoch == a.epoch.value && set.Generation < newest
}

// note keeps, before anything is removed by a set, which one it is.
func (a *Applier) note(ctx context.Context, set *v1alpha1.GatewayProgramSet) error {
	a.mu.Lock()
	e := a.epoch
	a.mu.Unlock()
	newest := fmt.Sprintf("%s/%d", set.UID, set.Generation)
	if e.newest == newest {
		return nil
	}
	e.newest = newest
	return a.keepEpoch(ctx, e)
}

// agrees says whether the programs are those that the set counts.
func agrees(set *v1alpha1.GatewayProgramSet, programs []*v1alpha1.GatewayProgram) bool {
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.Name
	}
	count, hash := digest.Programs(names)
	want := set.Spec.Programs
	return want.Count != nil && *want.Count == count && want.Hash == hash
}

// surplus lists what was made here and no program names, and counts all that was made here. What a program named before
// counts only when what it names now is in force; a certificate only when no Gateway uses it any more.
func (a *Applier) surplus(programs []*v1alpha1.GatewayProgram) (surplus map[key]*live, made int) {
	wants, waits := map[key]bool{}, map[string]bool{}
	for _, p := range programs {
		read := a.parse(p)
		for k := range read.wants {
			wants[k] = true
		}
		a.mu.Lock()
		waits[p.Name] = read.err != nil || a.done[p.Name] != read.number
		a.mu.Unlock()
	}
	surplus = map[key]*live{}
	used := map[string]bool{}
	for k, l := range a.state.allObjects() {
		if !l.mayRemove() {
			continue
		}
		made++
		switch {
		case wants[k] || waits[l.program]:
			for _, name := range l.secrets {
				used[name] = true
			}
		default:
			surplus[k] = l
		}
	}
	for name := range used {
		delete(surplus, key{secrets, name})
	}
	return surplus, made
}

// remove deletes what was made here, and only that very object.
func (a *Applier) remove(ctx context.Context, surplus map[key]*live) error {
	for _, k := range []kind{httpRoutes, grpcRoutes, gateways, secrets} {
		for key, l := range surplus {
			if key.kind != k {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			err := a.opts.Dynamic.Resource(resources[k]).Namespace(a.opts.Namespace).
				Delete(ctx, key.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &l.uid}})
			cancel()
			a.opts.Metrics.wrote(k, "delete", err)
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("remove %s: %w", key, err)
			}
			a.opts.Log.Info("removed what the hub no longer programs", "object", key.String(), "program", l.program)
			a.mu.Lock()
			delete(a.applied, key)
			delete(a.drifts, key)
			a.mu.Unlock()
		}
	}
	return nil
}

// acknowledged is the epoch within which things are removed; "" before the first.
func (a *Applier) acknowledged(ctx context.Context) (string, error) {
	a.mu.Lock()
	e := a.epoch
	a.mu.Unlock()
	if e.known {
		return e.value, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cm, err := a.opts.Kubernetes.CoreV1().ConfigMaps(a.opts.Namespace).Get(ctx, EpochConfigMap, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("read the acknowledged epoch: %w", err)
	}
	e = epoch{known: true}
	if err == nil {
		e.value, e.newest = cm.Data[epochKey], cm.Data[newestKey]
	}
	a.mu.Lock()
	a.epoch = e
	a.mu.Unlock()
	return e.value, nil
}

func (a *Applier) acknowledge(ctx context.Context, value string) error {
	if err := a.keepEpoch(ctx, epoch{known: true, value: value}); err != nil {
		return err
	}
	a.opts.Log.Info("the hub's epoch is acknowledged: what its complete programs lack is removed", "epoch", value)
	return nil
}

func (a *Applier) keepEpoch(ctx context.Context, e epoch) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cm := applycorev1.ConfigMap(EpochConfigMap, a.opts.Namespace).WithData(map[string]string{epochKey: e.value, newestKey: e.newest}).
		WithLabels(map[string]string{"app.kubernetes.io/managed-by": "isthmus"})
	_, err := a.opts.Kubernetes.CoreV1().ConfigMaps(a.opts.Namespace).Apply(ctx, cm, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("keep the acknowledged epoch: %w", err)
	}
	a.mu.Lock()
	a.epoch = e
	a.mu.Unlock()
	return nil
}
