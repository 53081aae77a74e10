package mirror

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// firstList is the revision that client-go asks for in the first list of all, if lists cannot be streamed: any that the API server has
	// at hand, which is cheap for it.
	firstList = "0"
	// seam is the longest time from the end of a watch until the next is asked for, and from then until it is answered, in which nobody
	// restores a store: its API servers have to stop for that, and to start again.
	seam = 2 * time.Second
	// early is how much sooner than asked for a watch may end by itself: the API server's clock is another, by 500 ppm at most (ntpd's bound), and
	// a watch lasts 10 minutes at most.
	early = 500 * time.Millisecond
)

// ListWatch makes a Source of the List and Watch methods of a client for one kind. The client set tells whether lists can be
// streamed (those of tests cannot); selector restricts to objects with these fields, "" is all.
//
// The API server's store may be restored from a backup at any time. A watch that goes on from a revision of the store that was hears
// nothing of what the restored one lacks, with no error, and revisions do not tell: the restored store counts on from the backup's, and a watch of
// what seldom changes knows none that is much later. So a watch goes on only where the last one lasted as long as it was asked to and the
// next followed at once; else all is listed anew. And what is listed anew is what there is, not what is as new as what was seen: the end of
// a streamed list would come when a restored store has reached that.
func ListWatch[L runtime.Object](
	client any, selector string,
	list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.ListerWatcher {
	return listWatch(&thread{now: time.Now}, client, selector, list, follow)
}

func listWatch[L runtime.Object](
	t *thread, client any, selector string,
	list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			if o.ResourceVersion != firstList {
				o.ResourceVersion = ""
			}
			out, err := list(ctx, o)
			t.list(err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			lists := o.SendInitialEvents != nil
			if lists {
				o.ResourceVersion = ""
			}
			asked := t.now()
			w, err := follow(ctx, o)
			if t.watch(lists, asked, o.TimeoutSeconds, err) || err != nil {
				return w, err
			}
			w.Stop()
			return nil, apierrors.NewResourceExpired("the last watch was cut off: the API server's store may be another")
		},
	}, client)
}

// thread is whether what watches tell is one story.
type thread struct {
	now func() time.Time

	mu     sync.Mutex
	listed bool      // and nothing failed since
	ends   time.Time // when the watch that runs ends by itself; zero: there is none that another may follow
}

// list notes that everything was listed, unless it failed.
func (t *thread) list(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listed = err == nil
}

// watch notes how a watch was answered just now that was asked for at a time, to last for so many seconds, and says whether it goes on where
// everything was listed or the last watch ended. One that lists everything itself always does.
func (t *thread) watch(lists bool, asked time.Time, seconds *int64, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	ends, listed := t.ends, t.listed
	t.ends, t.listed = time.Time{}, false
	if err != nil {
		return false
	}
	inTime := !ends.IsZero() && asked.Sub(ends) >= -early && asked.Sub(ends) <= seam && t.now().Sub(asked) <= seam
	if !lists && !listed && !inTime {
		return false
	}
	if seconds != nil {
		t.ends = asked.Add(time.Duration(*seconds) * time.Second)
	}
	return true
}

// Named is the selector for the one object of that name.
func Named(name string) string {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
}
