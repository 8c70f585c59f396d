package main

import (
	"context"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) promoteCommand() *cobra.Command {
	var f *clientFlags
	cmd := &cobra.Command{
		Use:   "promote MODEL VERSION",
		Short: "Serve a version, even against the policy",
		Long: `Serve a version, even against the policy. The ledger says so. The model then holds until the registry's pointer moves,
or until it is unpinned. A version in quarantine is tried again.`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				r, err := c.models.Promote(ctx, &modelgatev1.PromoteRequest{Model: args[0], Version: args[1]})
				return a.tell(f, r, err, args[0]+" serves version "+args[1])
			})
		},
	}
	f = a.clientFlags(cmd)
	return cmd
}
