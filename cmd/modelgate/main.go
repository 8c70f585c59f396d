// Command modelgate serves classifiers over gRPC and REST, takes new versions from a registry when their F1 improves, and swaps
// them in without failing a request.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(&app{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}

// app is what a command has of the world outside.
type app struct {
	in      *os.File
	out     *os.File
	err     *os.File
	environ []string
}

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// run executes one command line and returns the exit code.
func run(a *app, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteC()
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitError
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "modelgate: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(a.err, "modelgate: %v\n", sentence(err))
	return exitError
}

// errReported says that everything worth saying was printed, and that the exit code is 1.
var errReported = errors.New("reported")

// usageError is a command line that can't be understood.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "modelgate",
		Short: "Serve classifiers over gRPC, and swap in better versions without failing a request",
		Long: `modelgate serves text, video and fusion classifiers over gRPC and REST. It takes new versions from an MLflow
registry, or from a folder, when their F1 improves, and swaps them in without failing a request.

  modelgate demo                 everything in one command, with a small model that is part of this program
  modelgate serve --models DIR   serve a folder
  modelgate predict "some text"  ask a server`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddGroup(&cobra.Group{ID: "server", Title: "A server:"}, &cobra.Group{ID: "client", Title: "Asking a server:"})
	root.AddCommand(
		a.serveCommand(), a.demoCommand(), a.configCommand(), a.validateCommand(),
		a.predictCommand(), a.modelsCommand(), a.historyCommand(), a.refreshCommand(),
		a.promoteCommand(), a.rollbackCommand(), a.pinCommand(), a.unpinCommand(),
		a.versionCommand(), workerCommand(),
	)
	return root
}

func unknownCommand(cmd *cobra.Command, name string) error {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("unknown command %q; did you mean %q?", name, near[0])
	}
	return usagef("unknown command %q", name)
}

// args wraps cobra's checks of positional arguments, so that a wrong count is a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{fmt.Errorf("%w: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// printf writes to a terminal or pipe. A reader that went away ends the program by SIGPIPE, so there is no error to handle.
func printf(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}
