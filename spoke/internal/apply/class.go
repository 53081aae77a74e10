package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// hubController is the controller of the hub's class: in a cluster that has the hub too, its class implements nothing.
const hubController = "isthmus.dev/gateway-controller"

// choice is which GatewayClass to use, or why there is none.
type choice struct {
	name            string
	reason, message string
}

// choose picks the GatewayClass: the one that is asked for, or the only accepted one.
func choose(asked string, by string, classes map[string]class, served reading) choice {
	switch served {
	case missing:
		return choice{reason: v1alpha1.ReasonGatewayAPIMissing, message: missingAPI("gatewayclasses")}
	case unread:
		return choice{reason: v1alpha1.ReasonNoGatewayClass, message: "the cluster's GatewayClasses are not read yet"}
	}
	if asked != "" {
		c, ok := classes[asked]
		switch {
		case !ok:
			return choice{reason: v1alpha1.ReasonNoGatewayClass, message: fmt.Sprintf("GatewayClass %q, named by %s, does not exist in this cluster: make it, or name another", asked, by)}
		case c.controller == hubController:
			return choice{reason: v1alpha1.ReasonNoGatewayClass, message: fmt.Sprintf("GatewayClass %q, named by %s, is the hub's own: name one of an implementation", asked, by)}
		}
		return choice{name: asked, message: fmt.Sprintf("GatewayClass %q, named by %s", asked, by)}
	}
	var accepted, others []string
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		switch c := classes[name]; {
		case c.controller == hubController:
		case c.accepted:
			accepted = append(accepted, name)
		default:
			others = append(others, name)
		}
	}
	const how = "spec.gateway.className of the Spoke, or gateway.className in the spoke's chart"
	switch {
	case len(accepted) == 1:
		return choice{name: accepted[0], message: fmt.Sprintf("GatewayClass %q, the only accepted one", accepted[0])}
	case len(accepted) > 1:
		return choice{reason: v1alpha1.ReasonSeveralGatewayClasses, message: "several GatewayClasses are accepted: " + strings.Join(accepted, ", ") + "; choose by " + how}
	case len(others) > 0:
		return choice{reason: v1alpha1.ReasonNoGatewayClass, message: "no GatewayClass is accepted by its controller (there are " + strings.Join(others, ", ") + "): is it running?"}
	}
	return choice{reason: v1alpha1.ReasonNoGatewayClass, message: "this cluster has no GatewayClass: install a Gateway API implementation"}
}

func missingAPI(plural string) string {
	return fmt.Sprintf("this cluster does not serve %s.%s/v1: install the Gateway API's definitions, version 1.2 or later", plural, group)
}
