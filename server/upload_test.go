package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

type clientUpload = grpc.ClientStreamingClient[pb.UploadPredictRequest, pb.UploadPredictResponse]

func header(r *pb.PredictRequest) *pb.UploadPredictRequest {
	return &pb.UploadPredictRequest{Part: &pb.UploadPredictRequest_Header{Header: r}}
}

func chunk(b []byte) *pb.UploadPredictRequest {
	return &pb.UploadPredictRequest{Part: &pb.UploadPredictRequest_Chunk{Chunk: b}}
}

// sendAll sends messages until the server has ended the call; why it did is what the caller receives.
func sendAll(t testing.TB, s clientUpload, messages ...*pb.UploadPredictRequest) {
	t.Helper()
	for _, m := range messages {
		if err := s.Send(m); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Error(err)
			return
		}
	}
}

// upload sends a clip in chunks of n bytes.
func (g *gateway) upload(ctx context.Context, r *pb.PredictRequest, clip []byte, n int) (*pb.PredictResponse, error) {
	g.t.Helper()
	s, err := g.predict.UploadPredict(ctx)
	if err != nil {
		return nil, err
	}
	sendAll(g.t, s, header(r))
	for c := range slices.Chunk(clip, n) {
		sendAll(g.t, s, chunk(c))
	}
	resp, err := s.CloseAndRecv()
	return resp.GetPrediction(), err
}

// received is how a call ended before the caller ended it.
func received(s clientUpload) (*pb.PredictResponse, error) {
	var resp pb.UploadPredictResponse
	err := s.RecvMsg(&resp)
	return resp.GetPrediction(), err
}

func smallClip(t testing.TB) []byte {
	return clip(t, "mp4", "red", 10, "-c:v", "libx264", "-pix_fmt", "yuv420p")
}

// nothingHeld waits until no byte of any upload is in memory.
func nothingHeld(t testing.TB, g *gateway) {
	t.Helper()
	eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") == "0" })
}

// An upload is answered as the same clip in one message is, however it is cut.
func TestUpload(t *testing.T) {
	g := startClips(t)
	data := smallClip(t)
	for _, r := range []*pb.PredictRequest{{Model: "video", Id: "7", TopK: 1}, {Model: "fusion", Text: ptr("good")}, {Model: "fusion", Text: ptr("")}} {
		whole, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: r.GetModel(), Text: r.Text, Video: encoded(data), Id: r.GetId(), TopK: r.GetTopK()})
		must(t, err)
		for _, n := range []int{1, 1000, len(data)} {
			got, err := g.upload(t.Context(), r, data, n)
			must(t, err)
			if got.GetLabel() != "positive" || got.GetScore() != whole.GetScore() || got.GetId() != whole.GetId() || len(got.GetClasses()) != len(whole.GetClasses()) ||
				got.GetPath() != whole.GetPath() || got.GetDecision() != whole.GetDecision() {
				t.Errorf("in chunks of %d bytes: %v, whole: %v", n, got, whole)
			}
		}
	}
	nothingHeld(t, g)
}

// What is wrong with an upload is said as soon as it is known, whether the caller is done or not.
func TestBadUploads(t *testing.T) {
	g := startClips(t)
	data := smallClip(t)
	good := header(&pb.PredictRequest{Model: "video"})
	for _, c := range []struct {
		name         string
		messages     []*pb.UploadPredictRequest
		end          bool // the caller ends it
		code         codes.Code
		says, reason string
	}{
		{"nothing", nil, true, codes.InvalidArgument, "before its header", "HEADER_MISSING"},
		{"a chunk first", []*pb.UploadPredictRequest{chunk(data)}, false, codes.InvalidArgument, "header first", "HEADER_MISSING"},
		{"a header only", []*pb.UploadPredictRequest{good}, true, codes.InvalidArgument, "without a chunk", "NO_CHUNKS"},
		{"two headers", []*pb.UploadPredictRequest{good, good}, false, codes.InvalidArgument, "second header", "SECOND_HEADER"},
		{"a header after the clip", []*pb.UploadPredictRequest{good, chunk(data), good}, false, codes.InvalidArgument, "second header", "SECOND_HEADER"},
		{"an empty message first", []*pb.UploadPredictRequest{{}}, false, codes.InvalidArgument, "neither", "EMPTY_MESSAGE"},
		{"an empty message", []*pb.UploadPredictRequest{good, chunk(data), {}}, false, codes.InvalidArgument, "neither", "EMPTY_MESSAGE"},
		{"an empty clip", []*pb.UploadPredictRequest{good, chunk(nil)}, true, codes.InvalidArgument, "empty", "BAD_CLIP"},
		{"half a clip", []*pb.UploadPredictRequest{good, chunk(data[:len(data)/4])}, true, codes.InvalidArgument, "", "BAD_CLIP"},
		{"a header with a clip", []*pb.UploadPredictRequest{header(&pb.PredictRequest{Model: "video", Video: encoded(data)})}, false,
			codes.InvalidArgument, "has a video", "HEADER_WITH_VIDEO"},
		{"an empty header", []*pb.UploadPredictRequest{header(&pb.PredictRequest{})}, false, codes.InvalidArgument, "model is missing", "MODEL_MISSING"},
		{"no such model", []*pb.UploadPredictRequest{header(&pb.PredictRequest{Model: "vidoe"})}, false, codes.NotFound, "vidoe", "UNKNOWN_MODEL"},
		{"a negative top_k", []*pb.UploadPredictRequest{header(&pb.PredictRequest{Model: "video", TopK: -1})}, false, codes.InvalidArgument, "top_k", "BAD_TOP_K"},
		{"a text model", []*pb.UploadPredictRequest{header(&pb.PredictRequest{Model: "text"}), chunk(data)}, true, codes.InvalidArgument, "takes text only", "BAD_INPUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := g.predict.UploadPredict(t.Context())
			must(t, err)
			sendAll(t, s, c.messages...)
			if c.end {
				must(t, s.CloseSend())
			}
			resp, err := received(s)
			if resp != nil {
				t.Errorf("there is a prediction: %v", resp)
			}
			checkStatus(t, err, c.code, c.says, c.reason)
		})
	}
	nothingHeld(t, g)
}

// A model without a version is said before the clip is sent.
func TestUploadBeforeAVersionServes(t *testing.T) {
	g := start(t)
	s, err := g.predict.UploadPredict(t.Context())
	must(t, err)
	sendAll(t, s, header(&pb.PredictRequest{Model: "video"}))
	_, err = received(s)
	checkStatus(t, err, codes.Unavailable, "", "NOT_READY")
}

// A clip of exactly the limit passes, one byte more doesn't, and an upload that never ends is ended.
func TestUploadLimit(t *testing.T) {
	data := smallClip(t)
	for _, c := range []struct {
		limit int
		code  codes.Code
	}{{len(data), codes.OK}, {len(data) - 1, codes.InvalidArgument}} {
		g := startClips(t, func(cfg *config) {
			cfg.options.Limits = server.Limits{UploadBytes: c.limit, MessageBytes: 1 << 20, UploadsBytes: c.limit + 1<<20}
		})
		for _, n := range []int{100, len(data)} {
			resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, data, n)
			if status.Code(err) != c.code || (resp != nil) != (err == nil) {
				t.Errorf("%d bytes in chunks of %d where %d are allowed: %v, %v", len(data), n, c.limit, resp, err)
			}
			if err != nil {
				checkStatus(t, err, codes.InvalidArgument, fmt.Sprintf("more than %d bytes", c.limit), "CLIP_TOO_LARGE")
			}
		}
		s, err := g.predict.UploadPredict(t.Context())
		must(t, err)
		sendAll(t, s, header(&pb.PredictRequest{Model: "video"}))
		for err == nil {
			err = s.Send(chunk(data))
		}
		_, err = received(s)
		checkStatus(t, err, codes.InvalidArgument, "", "CLIP_TOO_LARGE")
		nothingHeld(t, g)
	}
}

// smallUploads is room for one clip of 200 KiB and little more.
func smallUploads(c *config) {
	c.options.Limits = server.Limits{UploadBytes: 200 << 10, MessageBytes: 100 << 10, UploadsBytes: 300 << 10}
}

// An upload that would go over the memory for all is refused and gives back what it held; those that are abandoned do so too.
func TestUploadBudget(t *testing.T) {
	g := startClips(t, smallUploads)
	ctx, cancel := context.WithCancel(t.Context())
	first, err := g.predict.UploadPredict(ctx)
	must(t, err)
	sendAll(t, first, header(&pb.PredictRequest{Model: "video"}), chunk(make([]byte, 90<<10)), chunk(make([]byte, 90<<10)))
	eventually(t, func() bool { // all of it is there: else it would be the first that waits for room
		held, err := strconv.ParseFloat(metric(t, g, "modelgate_upload_bytes"), 64)
		return err == nil && held >= 180<<10
	})
	second, err := g.predict.UploadPredict(t.Context())
	must(t, err)
	sendAll(t, second, header(&pb.PredictRequest{Model: "video"}), chunk(make([]byte, 90<<10)), chunk(make([]byte, 90<<10)))
	_, err = received(second)
	checkStatus(t, err, codes.ResourceExhausted, "try again later", "UPLOADS_FULL")
	if !slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok }) {
		t.Error("nothing says when to try again")
	}
	cancel()
	nothingHeld(t, g)
	resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, smallClip(t), 100)
	if err != nil || resp.GetLabel() != "positive" {
		t.Errorf("after the abandoned upload: %v, %v", resp, err)
	}
}

// A header counts too: many large ones that nothing follows must not fill the memory.
func TestUploadHeadersCount(t *testing.T) {
	g := startClips(t, smallUploads)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	text := string(make([]byte, 90<<10))
	var err error
	for i := 0; err == nil && i < 4; i++ {
		s, serr := g.predict.UploadPredict(ctx)
		must(t, serr)
		sendAll(t, s, header(&pb.PredictRequest{Model: "fusion", Text: &text}))
		if i == 3 {
			_, err = received(s)
		} else {
			eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") == fmt.Sprint((i+1)*(90<<10+12)) })
		}
	}
	checkStatus(t, err, codes.ResourceExhausted, "", "UPLOADS_FULL")
}

// Uploads at the same time, more than there is room for, don't wait for each other for ever: some are refused, the others answered.
func TestUploadsOverTheBudget(t *testing.T) {
	g := startClips(t, smallUploads)
	data := append(smallClip(t), make([]byte, 190<<10)...) // what follows the clip is ignored
	var answered, refused atomic.Int64
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, data, 10<<10)
			switch {
			case err == nil && resp.GetLabel() == "positive":
				answered.Add(1)
			case status.Code(err) == codes.ResourceExhausted && resp == nil:
				refused.Add(1)
			default:
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
	wg.Wait()
	if answered.Load() == 0 {
		t.Error("none was answered")
	}
	t.Logf("%d answered, %d refused", answered.Load(), refused.Load())
	nothingHeld(t, g)
}

// A caller that sends nothing any more, or a little for ever, is told so.
func TestSlowUploads(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		g := startClips(t, func(c *config) { c.options.Limits.UploadIdle = 50 * time.Millisecond })
		s, err := g.predict.UploadPredict(t.Context())
		must(t, err)
		_, err = received(s)
		checkStatus(t, err, codes.DeadlineExceeded, "nothing came for 50ms", "UPLOAD_TOO_SLOW")
	})
	t.Run("a byte at a time", func(t *testing.T) {
		g := startClips(t, func(c *config) { c.options.Limits.UploadTime = 200 * time.Millisecond })
		s, err := g.predict.UploadPredict(t.Context())
		must(t, err)
		sendAll(t, s, header(&pb.PredictRequest{Model: "video"}))
		for tick := time.NewTicker(10 * time.Millisecond); err == nil; <-tick.C {
			err = s.Send(chunk([]byte{1}))
		}
		_, err = received(s)
		checkStatus(t, err, codes.DeadlineExceeded, "after 200ms the clip isn't whole", "UPLOAD_TOO_SLOW")
		nothingHeld(t, g)
	})
}

// A drain ends what isn't whole, so that the caller sends it elsewhere, and answers what is.
func TestDrainDuringUploads(t *testing.T) {
	g := startClips(t)
	running, release := make(chan struct{}, 10), make(chan struct{})
	g.engine.hook(func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}, nil)
	data := smallClip(t)
	whole := make(chan error, 1)
	go func() {
		_, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, data, 100)
		whole <- err
	}()
	<-running
	half, err := g.predict.UploadPredict(t.Context())
	must(t, err)
	sendAll(t, half, header(&pb.PredictRequest{Model: "video"}), chunk(data[:50]))
	eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") > fmt.Sprint(100<<10) })
	ended := make(chan error, 1)
	go func() { ended <- g.end() }()
	_, err = received(half)
	checkStatus(t, err, codes.Unavailable, "shutting down", "DRAINING")
	close(release)
	must(t, <-whole)
	must(t, <-ended)
}

// An upload holds up no swap, and is answered by what serves when it is whole.
func TestSwapDuringAnUpload(t *testing.T) {
	g := startClips(t)
	data := smallClip(t)
	s, err := g.predict.UploadPredict(t.Context())
	must(t, err)
	sendAll(t, s, header(&pb.PredictRequest{Model: "video"}), chunk(data[:100]))
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, data, 500); err != nil {
					t.Errorf("%v, %v", resp, err)
				}
			}
		})
	}
	for i := 2; i <= 4; i++ {
		g.publish(version{"video", i, 0.9 + float64(i)/100, enginetest.VideoBundle{}})
		resp, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "video"})
		if err != nil || !resp.GetSwapped() {
			t.Fatalf("swap to %d: %v, %v", i, resp, err)
		}
	}
	stop()
	wg.Wait()
	sendAll(t, s, chunk(data[100:]))
	resp, err := s.CloseAndRecv()
	if err != nil || resp.GetPrediction().GetVersion() != "4" || resp.GetPrediction().GetLabel() != "positive" {
		t.Errorf("%v, %v", resp, err)
	}
}

// Whatever fails behind an upload is an error, and gives its memory back.
func TestFaultsBehindUploads(t *testing.T) {
	g := startClips(t)
	data := smallClip(t)
	for _, f := range faults() {
		g.engine.hook(f.before, f.after)
		resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, data, 1000)
		over := g.media(raw(data))
		g.engine.hook(nil, nil)
		if err := refused(resp, status.Code(err)); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if over.code < 429 || over.json["decision"] != nil || over.json["score"] != nil || over.json["code"] == nil {
			t.Errorf("%s over REST: %d %s", f.name, over.code, over.raw)
		}
	}
	nothingHeld(t, g)
}
