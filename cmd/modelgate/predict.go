package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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
			case len(args) == 0:
				if isTerminal(a.in) {
					printf(a.err, "Type a text a line; Ctrl-D ends.\n")
				}
				texts = lineTexts(a.in)
				f.timeout = 365 * 24 * time.Hour // as long as somebody types
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
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

// answers prints answers.
type answers struct {
	a      *app
	json   bool
	p      palette
	failed int
	all    int
}

func newAnswers(a *app, output string) *answers {
	return &answers{a: a, json: output == "json", p: a.palette(a.out)}
}

func (p *answers) print(s *sent) error {
	p.all++
	if s.answer.GetError() != nil {
		p.failed++
	}
	if p.json {
		b, err := compactJSON(s.answer)
		if err != nil {
			return err
		}
		printf(p.a.out, "%s\n", b)
		return nil
	}
	if e := s.answer.GetError(); e != nil {
		printf(p.a.err, "%s %s  %s\n", p.p.paint(red, "error"), inputText(s.text, s.file, 40), e.GetMessage())
		return nil
	}
	r := s.answer.GetPrediction()
	printf(p.a.out, "%s  %.3f %s  %s  %s  %s\n", p.p.paint(bold, fmt.Sprintf("%-12s", r.GetLabel())), r.GetScore(),
		bar(r.GetScore()), p.decision(r), p.p.paint(faint, r.GetModel()+" v"+r.GetVersion()), inputText(s.text, s.file, 60)+notes(r))
	return nil
}

// decision is what the score means, in words of one width.
func (p *answers) decision(r *modelgatev1.PredictResponse) string {
	switch r.GetDecision() {
	case modelgatev1.Decision_DECISION_AT_OR_ABOVE_THRESHOLD:
		return p.p.paint(red, fmt.Sprintf("%-20s", fmt.Sprintf("%s >= %.4g", r.GetPositiveLabel(), r.GetThreshold())))
	case modelgatev1.Decision_DECISION_BELOW_THRESHOLD:
		return p.p.paint(green, fmt.Sprintf("%-20s", fmt.Sprintf("%s < %.4g", r.GetPositiveLabel(), r.GetThreshold())))
	}
	return fmt.Sprintf("%-20s", "undecided")
}

func (p *answers) result() error {
	if p.failed > 0 {
		return fmt.Errorf("%d of %d inputs got no answer", p.failed, p.all)
	}
	return nil
}

// notes are what the caller should know about how its input was encoded.
func notes(r *modelgatev1.PredictResponse) string {
	said := ""
	if r.GetTruncated() {
		said = " (cut to the model's length)"
	}
	if r.GetFramesRepeated() {
		said += " (fewer frames than the model takes)"
	}
	return said
}

// inputText is a text in quotes, at most n runes of it, and the clip beside it; either may be missing.
func inputText(text *string, clip string, n int) string {
	if text == nil {
		return clip
	}
	return strings.TrimSuffix(shorten(*text, n)+" "+clip, " ")
}

// bar draws a score.
func bar(score float64) string {
	const width = 10
	full := min(max(int(score*width+0.5), 0), width)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// shorten is text on one line, in quotes, at most n runes of it.
func shorten(text string, n int) string {
	r := []rune(strings.Join(strings.Fields(text), " "))
	if len(r) > n {
		r = append(r[:n-1], '…')
	}
	return strconv.Quote(string(r))
}
