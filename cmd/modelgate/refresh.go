package main

import (
	"context"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) refreshCommand() *cobra.Command {
	var f *clientFlags
	cmd := &cobra.Command{
		Use:               "refresh [MODEL...]",
		Short:             "Look at the registry now",
		Args:              args(cobra.ArbitraryArgs),
		ValidArgsFunction: a.completeModels(&f, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error { return a.refresh(ctx, c, f, args) })
		},
	}
	f = a.clientFlags(cmd)
	return cmd
}

// refresh looks at the models one after the other; all of them if none is named.
func (a *app) refresh(ctx context.Context, c *client, f *clientFlags, names []string) error {
	if len(names) == 0 {
		all, err := c.models.ListModels(ctx, &modelgatev1.ListModelsRequest{})
		if err != nil {
			return err
		}
		for _, m := range all.GetModels() {
			names = append(names, m.GetName())
		}
	}
	for _, name := range names {
		r, err := c.models.Refresh(ctx, &modelgatev1.RefreshRequest{Model: name})
		if err := a.tell(f, r, err, name+": "+orDash(r.GetReason())); err != nil {
			return err
		}
	}
	return nil
}
