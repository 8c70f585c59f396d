package main

import (
	"context"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) pinCommand() *cobra.Command {
	var f *clientFlags
	cmd := &cobra.Command{
		Use:               "pin MODEL [VERSION]",
		Short:             "Serve a version, or keep the one that serves, whatever the registry says",
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &modelgatev1.PinRequest{Model: args[0]}
			if len(args) == 2 {
				request.Version = args[1]
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				r, err := c.models.Pin(ctx, request)
				return a.tell(f, r, err, args[0]+" is pinned to version "+r.GetModel().GetPinned()+"; unpin it to follow the registry again")
			})
		},
	}
	f = a.clientFlags(cmd)
	return cmd
}
