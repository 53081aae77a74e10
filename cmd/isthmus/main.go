// Command isthmus shows what the hub knows: resources with their places, and why a request goes where it goes. It reads the
// hub's debug endpoint through the API server's Service proxy, by the rights of the kubeconfig's user.
package main

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-dev/isthmus/cmd/internal/program"
)

// version is set when linking.
var version = "devel"

func main() { program.Main(command()) }

func command() *cobra.Command {
	h := &hub{}
	c := &cobra.Command{
		Use:           "isthmus",
		Short:         "Shows what the Isthmus hub knows",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := c.PersistentFlags()
	f.StringVar(&h.kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster (default: KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&h.context, "context", "", "context of the kubeconfig (default: the current one)")
	f.StringVar(&h.namespace, "hub-namespace", "isthmus-system", "namespace of the hub")
	f.StringVar(&h.service, "hub-service", "isthmus-hub", "Service of the hub")
	c.AddCommand(getCommand(h), explainCommand(h))
	return c
}

func getCommand(h *hub) *cobra.Command {
	get := &cobra.Command{Use: "get", Short: "Lists what the hub knows"}
	var namespace, kind, output string
	resources := &cobra.Command{
		Use:     "resources",
		Aliases: []string{"resource"},
		Short:   "Lists the resources of the fleet and their places",
		Example: "  isthmus get resources -n shop --type agent",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := h.get(c.Context(), "debug/resources", map[string]string{"namespace": namespace, "type": kind})
			if err != nil {
				return err
			}
			return write(c.OutOrStdout(), output, body, printResources)
		},
	}
	resources.Flags().StringVarP(&namespace, "namespace", "n", "", "only resources of this namespace")
	resources.Flags().StringVar(&kind, "type", "", "only resources of this type: agent, mcp, modelapi or service")
	outputFlag(resources, &output)
	get.AddCommand(resources)
	return get
}

func explainCommand(h *hub) *cobra.Command {
	var from, output string
	c := &cobra.Command{
		Use:     "explain /namespace/type/name --from <spoke>",
		Short:   "Tells where a request goes from a spoke, and why",
		Example: "  isthmus explain /shop/agent/cart --from eu",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			body, err := h.get(c.Context(), "debug/explain", map[string]string{"path": args[0], "from": from})
			if err != nil {
				return err
			}
			return write(c.OutOrStdout(), output, body, printExplanation)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the spoke at whose edge the request arrives (required)")
	if err := c.MarkFlagRequired("from"); err != nil {
		panic(err) // the flag is defined in the line above
	}
	outputFlag(c, &output)
	return c
}

func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "table", "table or json")
}
