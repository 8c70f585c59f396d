package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) historyCommand() *cobra.Command {
	var f *clientFlags
	var limit int32
	cmd := &cobra.Command{
		Use:               "history [MODEL]",
		Short:             "Show the decisions about versions and why they were made, newest first",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > 1000 {
				return usagef("--limit %d is not from 1 to 1000", limit)
			}
			request := &modelgatev1.HistoryRequest{Limit: limit}
			if len(args) == 1 {
				request.Model = args[0]
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				r, err := c.models.History(ctx, request)
				if err != nil {
					return err
				}
				if f.output == "json" {
					return printJSON(a.out, r)
				}
				a.historyTable(r.GetEntries())
				return nil
			})
		},
	}
	f = a.clientFlags(cmd)
	cmd.Flags().Int32VarP(&limit, "limit", "n", 50, "most decisions to show")
	return cmd
}

func (a *app) historyTable(entries []*modelgatev1.LedgerEntry) {
	t := table{head: []string{"WHEN", "MODEL", "OUTCOME", "VERSION", "F1", "BY", "WHY"}}
	for _, e := range entries {
		t.add(cell{ago(e.GetTime()), faint}, cell{e.GetModel(), bold}, cell{e.GetOutcome(), outcomeColour(e.GetOutcome())},
			cell{text: fromTo(e, versionOf)}, cell{text: fromTo(e, f1Of)}, cell{text: e.GetActor()}, cell{text: e.GetReason()})
	}
	t.print(a.out, a.palette(a.out))
}

// fromTo is "v1 -> v2", or one of them if there is no other.
func fromTo(e *modelgatev1.LedgerEntry, of func(*modelgatev1.ModelVersion) string) string {
	from, to := of(e.GetActive()), of(e.GetCandidate())
	if e.GetActive().GetVersion() == "" || e.GetActive().GetVersion() == e.GetCandidate().GetVersion() {
		return to
	}
	return fmt.Sprintf("%s -> %s", from, to)
}

func outcomeColour(outcome string) string {
	switch outcome {
	case "swapped", "restored":
		return green
	case "failed":
		return red
	case "rolled_back", "refused":
		return yellow
	}
	return ""
}
