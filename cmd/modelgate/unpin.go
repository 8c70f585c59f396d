package main

import (
	"context"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) unpinCommand() *cobra.Command {
	var f *clientFlags
	cmd := &cobra.Command{
		Use:               "unpin MODEL",
		Short:             "Follow the registry again after a pin, a promotion or a rollback",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				r, err := c.models.Unpin(ctx, &modelgatev1.UnpinRequest{Model: args[0]})
				return a.tell(f, r, err, args[0]+" follows the registry again")
			})
		},
	}
	f = a.clientFlags(cmd)
	return cmd
}
