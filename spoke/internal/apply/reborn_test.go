package apply_test

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestProgramOfTheSameName: a program is deleted and made again while the hub is not heard. Both are of generation 1, and what the first
// named stays until what the second names is in force.
func TestProgramOfTheSameName(t *testing.T) {
	w := newWorld(t, "reborn")
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("old", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly("Gateway gw", "HTTPRoute old")
	w.says("shop", v1alpha1.ReasonApplied)
	w.setCondition(w.onHub, v1alpha1.ProgramSetStale, v1alpha1.ReasonComplete)
	w.endSession()

	w.unprogram(w.onHub, "shop")
	refused := route("new", "gw", "/shop/agent/cart")
	refused.Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Method: new(gatewayv1.HTTPMethod)}} // no method
	w.program(w.onHub, "shop", "e1", nil, refused)
	w.follow(w.onHub)
	w.says("shop", v1alpha1.ReasonRejected)
	w.keeps("Gateway gw", "HTTPRoute old")

	w.program(w.onHub, "shop", "e1", nil, route("new", "gw", "/shop/agent/cart"))
	w.hasOnly("Gateway gw", "HTTPRoute new")
}

// TestGenerationCountedTwice: a hub's store that was restored counts a program's generations again from the backup's, so that another
// content may have the generation of one that is in force.
func TestGenerationCountedTwice(t *testing.T) {
	w := newWorld(t, "twice")
	pin := func(o client.Object) {
		if o.GetName() == "shop" {
			o.SetGeneration(7)
		}
	}
	w.hub = interceptor.NewClient(w.hub, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, list, opts...)
			if programs, ok := list.(*v1alpha1.GatewayProgramList); ok {
				for i := range programs.Items {
					pin(&programs.Items[i])
				}
			}
			return err
		},
		Watch: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
			events, err := c.Watch(ctx, list, opts...)
			if err != nil {
				return nil, err
			}
			return each(events, func(o runtime.Object) {
				if p, ok := o.(*v1alpha1.GatewayProgram); ok {
					pin(p)
				}
			}), nil
		},
	})
	w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
	w.program(w.onHub, "shop", "e1", nil, route("old", "gw", "/shop/agent/cart"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.hasOnly("Gateway gw", "HTTPRoute old")
	w.program(w.onHub, "shop", "e1", nil, route("new", "gw", "/shop/agent/cart"))
	w.hasOnly("Gateway gw", "HTTPRoute new")
}

// each changes the objects of a watch.
func each(events watch.Interface, change func(runtime.Object)) watch.Interface {
	out := make(chan watch.Event)
	changed := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		defer events.Stop()
		for {
			select {
			case <-changed.StopChan():
				return
			case e, ok := <-events.ResultChan():
				if !ok {
					return
				}
				change(e.Object)
				select {
				case <-changed.StopChan():
					return
				case out <- e:
				}
			}
		}
	}()
	return changed
}
