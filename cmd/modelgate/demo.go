package main

import "github.com/spf13/cobra"

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Show a swap under load, with a small model that is part of this program", GroupID: "server"}
}
