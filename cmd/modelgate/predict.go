package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) predictCommand() *cobra.Command {
	var f *clientFlags
	var q question
	var file string
	cmd := &cobra.Command{
		Use:   "predict [TEXT...]",
		Short: "Score texts: the arguments, or the lines of standard input; with --video a clip",
		Example: `  modelgate predict "what a lovely day" "this is awful"
  modelgate predict --output json < texts.txt
  modelgate predict --video clip.mp4
  modelgate predict --video clip.mp4 "what its author wrote"`,
		Args:              args(cobra.ArbitraryArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			texts := sliceTexts(args)
			switch {
			case file != "":
				one, err := q.takeClip(file, args)
				if err != nil {
					return err
				}
				texts = one
				if q.large != nil {
					defer func() { _ = q.large.file.Close() }() // it was read only
					f.timeout += uploadTime
				}
			case len(args) == 0:
				if isTerminal(a.in) {
					printf(a.err, "Type a text a line; Ctrl-D ends.\n")
				}
				texts = lineTexts(a.in)
				f.timeout = 365 * 24 * time.Hour // as long as somebody types
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				if q.large != nil {
					return a.upload(ctx, c, f.output, q, texts)
				}
				return a.predict(ctx, c, f.output, q, texts)
			})
		},
	}
	f = a.clientFlags(cmd)
	cmd.Flags().StringVarP(&q.model, "model", "m", "", "served name of the model; default: text, with --video video, with both fusion")
	cmd.Flags().StringVar(&file, "video", "", "a clip to score, alone or with one text")
	cmd.Flags().Int32Var(&q.topK, "top-k", 0, "most classes to return; 0 is all (json only)")
	_ = cmd.RegisterFlagCompletionFunc("model", func(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeModels(&f, -1)(cmd, nil, toComplete)
	})
	return cmd
}

// sent is an input that waits for its answer.
type sent struct {
	text   *string
	file   string
	answer *modelgatev1.PredictStreamResponse
}

// predict sends the texts over one stream and prints the answers in the order of the texts, as soon as they are there.
// What the server can't score is told and makes the exit code 1; the rest goes on.
func (a *app) predict(ctx context.Context, c *client, output string, q question, next texts) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.predictions.PredictStream(ctx)
	if err != nil {
		return err
	}
	waiting := make(chan *sent, 1<<10) // in order; bounds what we hold of the input
	sender := make(chan error, 1)
	go func() {
		defer close(waiting)
		sender <- send(ctx, stream, q, next, waiting)
	}()
	p := newAnswers(a, output)
	arrived := make(map[string]*modelgatev1.PredictStreamResponse)
	for n := 0; ; n++ {
		s, ok := <-waiting
		if !ok {
			break
		}
		id := strconv.Itoa(n)
		for arrived[id] == nil {
			r, err := stream.Recv()
			if err != nil {
				return streamError(err)
			}
			arrived[r.GetId()] = r
		}
		s.answer = arrived[id]
		delete(arrived, id)
		if err := p.print(s); err != nil {
			return err
		}
	}
	if err := <-sender; err != nil {
		return err
	}
	return p.result()
}

func streamError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the server ended the stream before it had answered everything")
	}
	return err
}

// send sends every text with its number as id, until there are no more or the stream ends.
func send(ctx context.Context, stream modelgatev1.PredictionService_PredictStreamClient, q question, next texts, waiting chan<- *sent) error {
	for n := 0; ; n++ {
		text, err := next()
		if errors.Is(err, io.EOF) {
			return stream.CloseSend()
		}
		if err != nil {
			return err
		}
		r := q.request(text, strconv.Itoa(n))
		if err := stream.Send(&modelgatev1.PredictStreamRequest{Request: r}); err != nil && !errors.Is(err, io.EOF) {
			return err // io.EOF: the receiver learns why
		}
		select {
		case waiting <- &sent{text: text, file: q.file}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
