package main

import (
	"context"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) rollbackCommand() *cobra.Command {
	var f *clientFlags
	cmd := &cobra.Command{
		Use:   "rollback MODEL",
		Short: "Return to the version before",
		Long: `Return to the version before: at once while it is in memory, else from the local cache. The model then holds until the
registry's pointer moves, or until it is unpinned. A second rollback goes forward again.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				r, err := c.models.Rollback(ctx, &modelgatev1.RollbackRequest{Model: args[0]})
				return a.tell(f, r, err, args[0]+" serves version "+r.GetModel().GetActive().GetVersion()+" again")
			})
		},
	}
	f = a.clientFlags(cmd)
	return cmd
}
