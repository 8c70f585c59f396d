package modelgate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgate "modelgate/clients/go"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// noise is a clip whose parts are all different.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// Up to the limit a clip goes in a message, above it in chunks; the server gets the same bytes.
func TestPredictVideo(t *testing.T) {
	const above = 1 << 20
	p := (&peer{predict: func(_ context.Context, r *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
		return &modelgatev1.PredictResponse{Label: fmt.Sprintf("%x", sha256.Sum256(r.GetVideo().GetClip())), Reason: fmt.Sprint(r.Text != nil), Id: r.GetId(), Model: r.GetModel()}, nil
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{UploadAbove: above})
	for _, test := range []struct {
		name    string
		size    int
		options []modelgate.RequestOption
		method  string
		reason  string // whether there is a text, and how many chunks there are
	}{
		{"empty", 0, nil, "Predict", "false"},
		{"small", 1000, nil, "Predict", "false"},
		{"small with a text", 1000, []modelgate.RequestOption{modelgate.Text("a")}, "Predict", "true"},
		{"small with an empty text", 1000, []modelgate.RequestOption{modelgate.Text("")}, "Predict", "true"},
		{"at the limit", above, nil, "Predict", "false"},
		{"above the limit with its text", above - 10, []modelgate.RequestOption{modelgate.Text("eleven more")}, "UploadPredict", "true, 4 chunks"},
		{"above the limit", above + 1, nil, "UploadPredict", "false, 5 chunks"},
		{"large with a text", 5 << 20, []modelgate.RequestOption{modelgate.Text("a")}, "UploadPredict", "true, 20 chunks"},
		{"large with an empty text", 5 << 20, []modelgate.RequestOption{modelgate.Text("")}, "UploadPredict", "true, 20 chunks"},
	} {
		clip := noise(test.size)
		for way, predict := range map[string]func(...modelgate.RequestOption) (*modelgate.Prediction, error){
			"bytes": func(o ...modelgate.RequestOption) (*modelgate.Prediction, error) {
				return c.PredictVideo(ctx, "video", clip, o...)
			},
			"reader": func(o ...modelgate.RequestOption) (*modelgate.Prediction, error) {
				return c.PredictVideoFrom(ctx, "video", iotest.HalfReader(bytes.NewReader(clip)), o...)
			},
		} {
			t.Run(test.name+", "+way, func(t *testing.T) {
				before := p.count(test.method)
				got, err := predict(append(test.options, modelgate.ID("7"))...)
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("%x", sha256.Sum256(clip)); got.Label != want || got.ID != "7" || got.Model != "video" || got.Reason != test.reason {
					t.Errorf("got %+v, want the clip %s and %q", got, want, test.reason)
				}
				if p.count(test.method) != before+1 {
					t.Errorf("%s was not called once", test.method)
				}
			})
		}
	}
}

func TestPredictVideoWithoutBytes(t *testing.T) {
	p := (&peer{predict: func(_ context.Context, r *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
		if r.GetVideo() == nil {
			return nil, status.Error(codes.Internal, "the clip is absent, not empty")
		}
		return nil, status.Error(codes.InvalidArgument, "the clip is empty")
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	if _, err := c.PredictVideo(ctx, "video", nil); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

// Bytes are sent again when a server goes away in the middle of them; what came from a reader can't be.
func TestUploadsAreRepeatedWhereTheyCanBe(t *testing.T) {
	clip := noise(5 << 20)
	for name, test := range map[string]struct {
		predict func(context.Context, *modelgate.Client) (*modelgate.Prediction, error)
		calls   int
		code    codes.Code
	}{
		"bytes": {func(ctx context.Context, c *modelgate.Client) (*modelgate.Prediction, error) {
			return c.PredictVideo(ctx, "video", clip)
		}, 2, codes.OK},
		"reader": {func(ctx context.Context, c *modelgate.Client) (*modelgate.Prediction, error) {
			return c.PredictVideoFrom(ctx, "video", bytes.NewReader(clip))
		}, 1, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := (&peer{chunk: func(call, n int) error {
				if call == 1 && n == 10 {
					return status.Error(codes.Unavailable, "the server is shutting down")
				}
				return nil
			}}).start(t)
			ctx, c := dial(t, p.addr, modelgate.Options{})
			got, err := test.predict(ctx, c)
			if status.Code(err) != test.code || p.count("UploadPredict") != test.calls {
				t.Errorf("%v after %d calls, want %v after %d", err, p.count("UploadPredict"), test.code, test.calls)
			}
			if want := fmt.Sprintf("%x", sha256.Sum256(clip)); err == nil && got.Label != want {
				t.Errorf("the server got %s, want %s", got.Label, want)
			}
		})
	}
}

// endless is a clip without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An upload that the server refuses half-way ends with what the server said, and isn't sent on.
func TestUploadRefused(t *testing.T) {
	p := (&peer{chunk: func(_, n int) error {
		if n == 10 {
			return status.Error(codes.InvalidArgument, "the clip is too large")
		}
		return nil
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	got, err := c.PredictVideoFrom(ctx, "video", endless{})
	if status.Code(err) != codes.InvalidArgument || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, part := range []string{"upload a clip for video", p.addr, "too large"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q doesn't say %q", err, part)
		}
	}
}

// A reader that fails fails the call, and the server hears of it.
func TestUploadOfAReaderThatFails(t *testing.T) {
	p := (&peer{}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	broken := errors.New("the disk is gone")
	for name, size := range map[string]int{"early": 1000, "late": 5 << 20} {
		t.Run(name, func(t *testing.T) {
			r := io.MultiReader(bytes.NewReader(noise(size)), iotest.ErrReader(broken))
			got, err := c.PredictVideoFrom(ctx, "video", r)
			if !errors.Is(err, broken) || status.Code(err) != codes.Canceled || got != nil {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestBatchOfClips(t *testing.T) {
	p := (&peer{batch: func(r *modelgatev1.PredictBatchRequest) (*modelgatev1.PredictBatchResponse, error) {
		out := &modelgatev1.PredictBatchResponse{}
		for _, one := range r.GetRequests() {
			out.Responses = append(out.Responses, &modelgatev1.PredictBatchItem{Id: one.GetId(), Result: &modelgatev1.PredictBatchItem_Prediction{
				Prediction: &modelgatev1.PredictResponse{Label: fmt.Sprint(one.Text != nil, len(one.GetVideo().GetClip()))}}})
		}
		return out, nil
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	results, err := c.PredictBatch(ctx, "fusion", []modelgate.Request{{Text: "a"}, {}, {Video: []byte("abc")}, {Video: []byte("abc"), Text: "a"}, {Video: []byte("abc"), EmptyText: true}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"true 0", "true 0", "false 3", "true 3", "true 3"} {
		if got := results[i].Prediction.Label; got != want {
			t.Errorf("request %d: %s, want %s", i, got, want)
		}
	}
}
