package modelgate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	modelgate "modelgate/clients/go"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each call meets a server that fails twice. Only what is safe to repeat is.
func TestRepeatsOnlyWhatIsSafe(t *testing.T) {
	type calls map[string]func(context.Context, *modelgate.Client) error
	safe := calls{
		"Predict": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Predict(ctx, "text", "a")
			return err
		},
		"UploadPredict": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.PredictVideo(ctx, "video", make([]byte, 5<<20))
			return err
		},
		"PredictBatch": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.PredictBatch(ctx, "text", []modelgate.Request{{}})
			return err
		},
		"ListModels": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().ListModels(ctx, &modelgatev1.ListModelsRequest{})
			return err
		},
		"PredictStream": func(ctx context.Context, c *modelgate.Client) error {
			for r, err := range c.PredictStream(ctx, "text", filled(3)) {
				if err != nil || r.Err != nil {
					return errors.Join(err, r.Err)
				}
			}
			return nil
		},
	}
	unsafe := calls{
		"Promote": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().Promote(ctx, &modelgatev1.PromoteRequest{})
			return err
		},
		"Refresh": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().Refresh(ctx, &modelgatev1.RefreshRequest{})
			return err
		},
		"Rollback": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().Rollback(ctx, &modelgatev1.RollbackRequest{})
			return err
		},
		"Pin": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().Pin(ctx, &modelgatev1.PinRequest{})
			return err
		},
		"Unpin": func(ctx context.Context, c *modelgate.Client) error {
			_, err := c.Models().Unpin(ctx, &modelgatev1.UnpinRequest{})
			return err
		},
	}
	for _, group := range []struct {
		name  string
		calls calls
		code  codes.Code
		want  int
	}{
		{"safe calls and an unavailable server", safe, codes.Unavailable, 3},
		{"safe calls and an overloaded server", safe, codes.ResourceExhausted, 1},
		{"safe calls and a server at fault", safe, codes.Internal, 1},
		{"unsafe calls and an unavailable server", unsafe, codes.Unavailable, 1},
	} {
		for method, call := range group.calls {
			t.Run(group.name+"/"+method, func(t *testing.T) {
				t.Parallel()
				p := (&peer{fail: failTimes(2, group.code)}).start(t)
				ctx, c := dial(t, p.addr, modelgate.Options{})
				err := call(ctx, c)
				if repeated := group.want > 1; repeated != (err == nil) {
					t.Errorf("the call ended with %v", err)
				}
				if got := p.count(method); got != group.want {
					t.Errorf("the server was called %d times, want %d", got, group.want)
				}
			})
		}
	}
}

func failTimes(n int, code codes.Code) func(int) error {
	return func(call int) error {
		if call <= n {
			return status.Error(code, "scripted")
		}
		return nil
	}
}

func TestMaxAttempts(t *testing.T) {
	for _, attempts := range []int{1, 2} {
		t.Run(fmt.Sprint(attempts), func(t *testing.T) {
			t.Parallel()
			p := (&peer{fail: failTimes(100, codes.Unavailable)}).start(t)
			ctx, c := dial(t, p.addr, modelgate.Options{MaxAttempts: attempts})
			if _, err := c.Predict(ctx, "text", "a"); status.Code(err) != codes.Unavailable {
				t.Errorf("the call ended with %v", err)
			}
			if got := p.count("Predict"); got != attempts {
				t.Errorf("the server was called %d times, want %d", got, attempts)
			}
		})
	}
}

func TestCallsGoRound(t *testing.T) {
	a, b := (&peer{}).start(t), (&peer{}).start(t)
	ctx, c := dial(t, a.addr+", "+b.addr, modelgate.Options{})
	for a.count("Predict") == 0 || b.count("Predict") == 0 { // until both are connected
		if _, err := c.Predict(ctx, "text", "hello"); err != nil {
			t.Fatal(err)
		}
	}
	before := a.count("Predict")
	for range 20 {
		if _, err := c.Predict(ctx, "text", "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.count("Predict") - before; got != 10 {
		t.Errorf("one of two servers got %d of 20 calls, want 10", got)
	}
}

func TestUnhealthyServersGetNoCalls(t *testing.T) {
	a, b := (&peer{}).start(t), (&peer{}).start(t)
	b.health.set(false)
	ctx, c := dial(t, a.addr+","+b.addr, modelgate.Options{})
	for range 50 {
		if _, err := c.Predict(ctx, "text", "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.count("Predict"); n != 0 {
		t.Errorf("the server that isn't healthy got %d calls", n)
	}
	b.health.set(true)
	for b.count("Predict") == 0 {
		if _, err := c.Predict(ctx, "text", "hello"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestModelsAnswerWithoutAHealthyModel(t *testing.T) {
	p := (&peer{}).start(t)
	p.health.set(false)
	ctx, c := dial(t, p.addr, modelgate.Options{MaxAttempts: 1})
	if _, err := c.Models().ListModels(ctx, &modelgatev1.ListModelsRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := c.Predict(ctx, "text", "a"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "does it serve a model yet?") {
		t.Errorf("a prediction ended with %v", err)
	}
}

func TestDeadline(t *testing.T) {
	deadline := make(chan time.Duration, 1)
	p := (&peer{predict: func(ctx context.Context, _ *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
		d, _ := ctx.Deadline()
		deadline <- time.Until(d)
		<-ctx.Done()
		return nil, ctx.Err()
	}}).start(t)
	ctx := t.Context()
	_, c := dial(t, p.addr, modelgate.Options{Timeout: 500 * time.Millisecond})
	if _, err := c.Predict(ctx, "text", "a"); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "Options.Timeout") {
		t.Errorf("a call without a deadline ended with %v", err)
	}
	if d := <-deadline; d > time.Second {
		t.Errorf("the server was given %v", d)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	go func() {
		if d := <-deadline; d < 30*time.Minute {
			t.Errorf("the server was given %v although the caller allows an hour", d)
		}
		cancel()
	}()
	if _, err := c.Predict(ctx, "text", "a"); status.Code(err) != codes.Canceled {
		t.Errorf("a call that the caller gave up ended with %v", err)
	}
}

func TestPredict(t *testing.T) {
	p := (&peer{predict: func(_ context.Context, r *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
		return &modelgatev1.PredictResponse{
			Classes: []*modelgatev1.Class{{Label: "harmful", Score: 0.75}}, Label: "harmful", Score: 0.75, PositiveLabel: "harmful",
			Decision: modelgatev1.Decision_DECISION_AT_OR_ABOVE_THRESHOLD, Threshold: 0.5,
			Model: r.GetModel(), Version: "12", Id: r.GetId(), Truncated: r.GetTopK() == 1,
			Digest: "d1", Reason: "because", FramesRepeated: true, Path: modelgatev1.Path_PATH_LATE_SCORE,
			Parts:   []*modelgatev1.Part{{Model: "text", Version: "3", Digest: "d2", Label: "harmless", Score: 0.25, PositiveLabel: "harmful", Weight: 0.3}},
			Timings: &modelgatev1.Timings{DecodeSeconds: 0.5, QueueSeconds: 0.25, ComputeSeconds: 2},
		}, nil
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{Token: "secret\n"})
	got, err := c.Predict(ctx, "text", "a", modelgate.ID("7"), modelgate.TopK(1))
	if err != nil {
		t.Fatal(err)
	}
	want := modelgate.Prediction{
		Classes: []modelgate.Class{{Label: "harmful", Score: 0.75}}, Label: "harmful", Score: 0.75, PositiveLabel: "harmful",
		Decision: modelgate.AtOrAboveThreshold, Threshold: 0.5, Model: "text", Version: "12", ID: "7", Truncated: true,
		Digest: "d1", Reason: "because", FramesRepeated: true, Path: modelgate.PathLateScore,
		Parts:   []modelgate.Part{{Model: "text", Version: "3", Digest: "d2", Label: "harmless", Score: 0.25, PositiveLabel: "harmful", Weight: 0.3}},
		Timings: modelgate.Timings{Decode: 500 * time.Millisecond, Queue: 250 * time.Millisecond, Compute: 2 * time.Second},
	}
	if fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.token != "Bearer secret" {
		t.Errorf("the server saw the authorization %q", p.token)
	}
}

func TestBatch(t *testing.T) {
	p := (&peer{batch: func(r *modelgatev1.PredictBatchRequest) (*modelgatev1.PredictBatchResponse, error) {
		out := &modelgatev1.PredictBatchResponse{}
		for _, one := range r.GetRequests() {
			item := &modelgatev1.PredictBatchItem{Id: one.GetId()}
			switch one.GetText() {
			case "":
				item.Result = &modelgatev1.PredictBatchItem_Error{Error: status.New(codes.InvalidArgument, "the text is empty").Proto()}
			case "nothing":
			case "OK as an error":
				item.Result = &modelgatev1.PredictBatchItem_Error{}
			case "lost":
				continue
			default:
				item.Result = &modelgatev1.PredictBatchItem_Prediction{Prediction: &modelgatev1.PredictResponse{Label: one.GetText()}}
			}
			out.Responses = append(out.Responses, item)
		}
		return out, nil
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	results, err := c.PredictBatch(ctx, "text", []modelgate.Request{
		{ID: "a", Text: "\xff"}, {ID: "b", Text: "good"}, {ID: "c"}, {ID: "d", Text: "nothing"}, {ID: "e", Text: "fine"}, {ID: "f", Text: "OK as an error"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range results {
		if (r.Prediction == nil) == (r.Err == nil) {
			t.Errorf("%q has prediction %v and error %v", r.ID, r.Prediction, r.Err)
			continue
		}
		if r.Err != nil {
			got = append(got, r.ID+":"+status.Code(r.Err).String())
		} else {
			got = append(got, r.ID+":"+r.Prediction.Label)
		}
	}
	if s, want := strings.Join(got, " "), "a:InvalidArgument b:good c:InvalidArgument d:Internal e:fine f:Internal"; s != want {
		t.Errorf("got %s, want %s", s, want)
	}
	if _, err := c.PredictBatch(ctx, "text", []modelgate.Request{{Text: "good"}, {Text: "lost"}}); status.Code(err) != codes.Internal {
		t.Errorf("a batch with an answer too few ended with %v", err)
	}
}

func TestErrorsKeepTheirStatus(t *testing.T) {
	busy, err := status.New(codes.ResourceExhausted, "1024 requests wait").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	p := (&peer{fail: func(call int) error {
		if call == 1 {
			return busy.Err()
		}
		return status.Error(codes.NotFound, "no model is called txt")
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	_, err = c.Predict(ctx, "txt", "a")
	if d, ok := modelgate.RetryDelay(err); status.Code(err) != codes.ResourceExhausted || !ok || d != 3*time.Second {
		t.Errorf("got %v, code %v, delay %v %v", err, status.Code(err), d, ok)
	}
	_, err = c.Predict(ctx, "txt", "a")
	if _, ok := modelgate.RetryDelay(err); ok || status.Code(err) != codes.NotFound {
		t.Errorf("got %v, code %v, delay %v", err, status.Code(err), ok)
	}
	for _, part := range []string{"predict with txt", p.addr, "no model is called txt"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q doesn't say %q", err, part)
		}
	}
}
