package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

func TestPredict(t *testing.T) {
	g := start(t)
	resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("a good film"), Id: "7"})
	must(t, err)
	if resp.GetModel() != "text" || resp.GetVersion() != "1" || resp.GetId() != "7" || len(resp.GetClasses()) != 2 || resp.GetTruncated() {
		t.Errorf("%v", resp)
	}
	best := resp.GetClasses()[0]
	if best.GetLabel() != resp.GetLabel() || best.GetScore() < resp.GetClasses()[1].GetScore() {
		t.Errorf("classes are not sorted: %v", resp)
	}
	if resp.GetPositiveLabel() != "positive" || resp.GetScore() != scoreOf(resp, "positive") {
		t.Errorf("score is not the positive label's: %v", resp)
	}
	want := pb.Decision_DECISION_BELOW_THRESHOLD
	if resp.GetScore() >= resp.GetThreshold() {
		want = pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD
	}
	if resp.GetDecision() != want {
		t.Errorf("decision of %v at %v: %v", resp.GetScore(), resp.GetThreshold(), resp.GetDecision())
	}
	t.Run("top_k", func(t *testing.T) {
		resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("a good film"), TopK: 1})
		must(t, err)
		if len(resp.GetClasses()) != 1 || resp.GetScore() == 0 {
			t.Errorf("%v", resp)
		}
	})
	t.Run("truncated", func(t *testing.T) {
		resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr(strings.Repeat("good ", 200))})
		must(t, err)
		if !resp.GetTruncated() {
			t.Errorf("%v", resp)
		}
	})
}

func scoreOf(r *pb.PredictResponse, label string) float64 {
	for _, c := range r.GetClasses() {
		if c.GetLabel() == label {
			return c.GetScore()
		}
	}
	return -1
}

// REST gives what gRPC gives, with the names of the .proto file and numbers as numbers.
func TestPredictOverREST(t *testing.T) {
	g := start(t)
	want, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("a good film"), Id: "7"})
	must(t, err)
	a := g.call(http.MethodPost, "/v1/models/text:predict", `{"text": "a good film", "id": "7"}`)
	if a.code != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", a.code, a.raw)
	}
	for field, want := range map[string]any{"id": "7", "model": "text", "version": "1", "label": want.GetLabel(), "score": want.GetScore(),
		"threshold": 0.5, "truncated": false, "decision": want.GetDecision().String(), "positive_label": "positive"} {
		if a.json[field] != want {
			t.Errorf("%s is %v, want %v", field, a.json[field], want)
		}
	}
	if !strings.HasPrefix(a.raw, `{"classes":[{"label":`) {
		t.Errorf("not the compact form: %s", a.raw)
	}
}

// bad is a request that gets no verdict, and what the caller is told.
type bad struct {
	name   string
	req    *pb.PredictRequest
	path   string // of the REST call; empty: text's
	body   string // of the REST call; empty: none is made
	code   codes.Code
	http   int
	says   string // part of the message
	reason string
}

func badRequests() []bad {
	long := strings.Repeat("a ", 40<<10)
	return []bad{
		{"no text", &pb.PredictRequest{Model: "text"}, "", `{}`, codes.InvalidArgument, 400, "takes a text, and none is given", "BAD_INPUT"},
		{"empty body", &pb.PredictRequest{Model: "text"}, "", ` `, codes.InvalidArgument, 400, "none is given", "BAD_INPUT"},
		{"empty text", &pb.PredictRequest{Model: "text", Text: ptr("")}, "", `{"text":""}`, codes.InvalidArgument, 400, "the text is empty", "BAD_INPUT"},
		{"white space", &pb.PredictRequest{Model: "text", Text: ptr(" \n")}, "", `{"text":" \n"}`, codes.InvalidArgument, 400, "the text is empty", "BAD_INPUT"},
		{"too long", &pb.PredictRequest{Model: "text", Text: ptr(long)}, "", `{"text":"` + long + `"}`,
			codes.InvalidArgument, 400, "it has 81920 bytes, the limit is 65536", "TEXT_TOO_LONG"},
		{"a clip", &pb.PredictRequest{Model: "text", Video: &pb.Video{Source: &pb.Video_Clip{Clip: []byte("x")}}}, "", `{"video":{"clip":"eA=="}}`,
			codes.InvalidArgument, 400, "takes text only", "BAD_INPUT"},
		{"a clip and a text", &pb.PredictRequest{Model: "text", Text: ptr("a"), Video: &pb.Video{}}, "", `{"text":"a","video":{}}`,
			codes.InvalidArgument, 400, "takes text only", "BAD_INPUT"},
		{"long id", &pb.PredictRequest{Model: "text", Text: ptr("a"), Id: strings.Repeat("i", 257)}, "", `{"text":"a","id":"` + strings.Repeat("i", 257) + `"}`,
			codes.InvalidArgument, 400, "id has 257 bytes, more than 256", "ID_TOO_LONG"},
		{"negative top_k", &pb.PredictRequest{Model: "text", Text: ptr("a"), TopK: -1}, "", `{"text":"a","top_k":-1}`,
			codes.InvalidArgument, 400, "top_k is -1", "BAD_TOP_K"},
		{"no model", &pb.PredictRequest{Text: ptr("a")}, "", "", codes.InvalidArgument, 400, "name one of text, video", "MODEL_MISSING"},
		{"unknown model", &pb.PredictRequest{Model: "txt", Text: ptr("a")}, "/v1/models/txt:predict", `{"text":"a"}`,
			codes.NotFound, 404, `no such model: "txt"; there are: text, video`, "UNKNOWN_MODEL"},
		{"odd name", &pb.PredictRequest{Model: "a%b ü:predict", Text: ptr("a")}, "/v1/models/a%25b%20%C3%BC%3Apredict:predict", `{"text":"a"}`,
			codes.NotFound, 404, `no such model: "a%b ü:predict"`, "UNKNOWN_MODEL"},
		{"name with dots", &pb.PredictRequest{Model: "..", Text: ptr("a")}, "/v1/models/%2e%2e:predict", `{"text":"a"}`, codes.NotFound, 404, `no such model: ".."`, "UNKNOWN_MODEL"},
		{"not ready", &pb.PredictRequest{Model: "video", Text: ptr("a")}, "/v1/models/video:predict", `{"text":"a"}`,
			codes.Unavailable, 503, "no version of the model serves yet; the registry has no promoted version", "NOT_READY"},
		{"unknown field", nil, "", `{"txt":"a"}`, codes.InvalidArgument, 400, `unknown field "txt"; its fields are model, text, video, id, top_k`, "UNREADABLE_MESSAGE"},
		{"number as text", nil, "", `{"text":1}`, codes.InvalidArgument, 400, "invalid value for string field text: 1", "UNREADABLE_MESSAGE"},
		{"not JSON", nil, "", `text=a`, codes.InvalidArgument, 400, "not the JSON that this call takes", "UNREADABLE_MESSAGE"},
		{"cut JSON", nil, "", `{"text":"a"`, codes.InvalidArgument, 400, "unexpected EOF", "UNREADABLE_MESSAGE"},
		{"two documents", nil, "", `{"text":"a"}{"text":"b"}`, codes.InvalidArgument, 400, "not the JSON", "UNREADABLE_MESSAGE"},
		{"twice the field", nil, "", `{"text":"a","text":"b"}`, codes.InvalidArgument, 400, "text", "UNREADABLE_MESSAGE"},
		{"not UTF-8", nil, "", "{\"text\":\"\xff\"}", codes.InvalidArgument, 400, "UTF-8", "UNREADABLE_MESSAGE"},
		{"lone surrogate", nil, "", `{"text":"\ud800"}`, codes.InvalidArgument, 400, "not the JSON", "UNREADABLE_MESSAGE"},
		{"null", nil, "", `null`, codes.InvalidArgument, 400, "not the JSON", "UNREADABLE_MESSAGE"},
		{"deep", nil, "", strings.Repeat(`{"video":`, 20000), codes.InvalidArgument, 400, "not the JSON", "UNREADABLE_MESSAGE"},
		{"too large", nil, "", `{"text":"` + strings.Repeat("a", 5<<20) + `"}`, codes.ResourceExhausted, 413, "the body has more than 4194304 bytes", "BODY_TOO_LARGE"},
	}
}

func TestBadInput(t *testing.T) {
	g := start(t)
	for _, b := range badRequests() {
		t.Run(b.name, func(t *testing.T) {
			if b.req != nil {
				resp, err := g.predict.Predict(t.Context(), b.req)
				if resp != nil {
					t.Errorf("there is a prediction: %v", resp)
				}
				checkStatus(t, err, b.code, b.says, b.reason)
			}
			if b.body == "" {
				return
			}
			path := b.path
			if path == "" {
				path = "/v1/models/text:predict"
			}
			checkAnswer(t, g.call(http.MethodPost, path, b.body), b)
		})
	}
}

// checkStatus checks the status of an error and that the wire carries its reason.
func checkStatus(t testing.TB, err error, code codes.Code, says, reason string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code || !strings.Contains(st.Message(), says) {
		t.Errorf("got %v: %.200q, want %v: %q", st.Code(), st.Message(), code, says)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == reason && info.GetDomain() == "modelgate" {
			return
		}
	}
	t.Errorf("no ErrorInfo with reason %s in %v", reason, st.Details())
}

func checkAnswer(t testing.TB, a answer, want bad) {
	t.Helper()
	message, _ := a.json["message"].(string)
	if a.code != want.http || !strings.Contains(message, want.says) || !strings.Contains(a.raw, `"reason":"`+want.reason+`"`) {
		t.Errorf("got %d %.300s, want %d %q %s", a.code, a.raw, want.http, want.says, want.reason)
	}
	if a.json["code"] != float64(want.code) || a.json["classes"] != nil || a.json["decision"] != nil {
		t.Errorf("code %v, want %d, and no verdict: %.300s", a.json["code"], want.code, a.raw)
	}
	if (want.code == codes.Unavailable) != (a.header.Get("Retry-After") != "") {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
}

// A string that isn't UTF-8 can't be sent by Go's generated code, but by others.
func TestNotUTF8OverGRPC(t *testing.T) {
	g := start(t)
	for name, method := range map[string]string{"predict": pb.PredictionService_Predict_FullMethodName, "model": pb.ModelService_GetModel_FullMethodName} {
		t.Run(name, func(t *testing.T) {
			// Field 1, a string of one byte: 0xff.
			raw := bytes.Clone([]byte{0x0a, 0x01, 0xff})
			err := g.conn.Invoke(t.Context(), method, &raw, new([]byte), grpcRaw())
			checkStatus(t, err, codes.InvalidArgument, "must be UTF-8", "UNREADABLE_MESSAGE")
		})
	}
}

func TestBatch(t *testing.T) {
	g := start(t)
	req := &pb.PredictBatchRequest{Model: "text"}
	for i := range 40 {
		r := &pb.PredictRequest{Id: fmt.Sprint(i), Text: ptr(strings.Repeat("good ", i+1))}
		switch i % 10 {
		case 3:
			r.Text = nil
		case 5:
			r.Text = ptr("")
		case 7:
			r.Model = "video"
		case 8:
			r.Model = "text"
		case 9:
			r.Video = &pb.Video{}
		}
		req.Requests = append(req.Requests, r)
	}
	resp, err := g.predict.PredictBatch(t.Context(), req)
	must(t, err)
	if len(resp.GetResponses()) != 40 {
		t.Fatalf("%d responses", len(resp.GetResponses()))
	}
	for i, item := range resp.GetResponses() {
		r := req.GetRequests()[i]
		if item.GetId() != r.GetId() {
			t.Errorf("item %d has id %q", i, item.GetId())
		}
		switch i % 10 {
		case 3, 5, 7, 9:
			if codes.Code(item.GetError().GetCode()) != codes.InvalidArgument || item.GetError().GetMessage() == "" || item.GetPrediction() != nil {
				t.Errorf("item %d: %v", i, item)
			}
		default:
			r.Model = "text"
			alone, err := g.predict.Predict(t.Context(), r)
			must(t, err)
			if item.GetError() != nil || math.Abs(item.GetPrediction().GetScore()-alone.GetScore()) > 1e-4 || item.GetPrediction().GetId() != r.GetId() {
				t.Errorf("item %d: %v, alone it is %v", i, item, alone)
			}
		}
	}
}

func TestBatchRefusals(t *testing.T) {
	g := start(t)
	tooMany := &pb.PredictBatchRequest{Model: "text", Requests: make([]*pb.PredictRequest, 257)}
	for i := range tooMany.GetRequests() {
		tooMany.Requests[i] = &pb.PredictRequest{Text: ptr("a")}
	}
	one := []*pb.PredictRequest{{Text: ptr("a")}}
	for _, c := range []struct {
		name         string
		req          *pb.PredictBatchRequest
		code         codes.Code
		says, reason string
	}{
		{"none", &pb.PredictBatchRequest{Model: "text"}, codes.InvalidArgument, "requests is empty", "EMPTY_BATCH"},
		{"too many", tooMany, codes.InvalidArgument, "the batch has 257 requests, more than 256: split it", "BATCH_TOO_LARGE"},
		{"no model", &pb.PredictBatchRequest{Requests: one}, codes.InvalidArgument, "model is missing", "MODEL_MISSING"},
		{"unknown model", &pb.PredictBatchRequest{Model: "x", Requests: one}, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
		{"not ready", &pb.PredictBatchRequest{Model: "video", Requests: one}, codes.Unavailable, "no version", "NOT_READY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := g.predict.PredictBatch(t.Context(), c.req)
			checkStatus(t, err, c.code, c.says, c.reason)
		})
	}
}

// At most so many items of one batch are computed or wait at the same time: with a busy worker and a bound of 2, no run has three.
func TestBatchConcurrency(t *testing.T) {
	g := start(t, func(c *config) { c.options.Limits = server.Limits{BatchConcurrency: 2}; c.workers = 1 })
	var most atomic.Int64
	g.engine.hook(nil, func(out []engine.Tensor) { most.Store(max(most.Load(), out[0].Shape[0])) })
	req := &pb.PredictBatchRequest{Model: "text"}
	for range 100 {
		req.Requests = append(req.Requests, &pb.PredictRequest{Text: ptr("good")})
	}
	resp, err := g.predict.PredictBatch(t.Context(), req)
	must(t, err)
	if len(resp.GetResponses()) != 100 || most.Load() > 2 {
		t.Errorf("%d answers, %d in one run", len(resp.GetResponses()), most.Load())
	}
}

func TestBatchOverREST(t *testing.T) {
	g := start(t)
	a := g.call(http.MethodPost, "/v1/models/text:predictBatch", `{"requests": [{"id": "a", "text": "good"}, {"id": "b"}]}`)
	var got struct {
		Responses []struct {
			ID         string          `json:"id"`
			Prediction *map[string]any `json:"prediction"`
			Error      *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		} `json:"responses"`
	}
	must(t, json.Unmarshal([]byte(a.raw), &got))
	if len(got.Responses) != 2 || got.Responses[0].Prediction == nil || got.Responses[0].Error != nil || got.Responses[0].ID != "a" {
		t.Fatalf("%s", a.raw)
	}
	if b := got.Responses[1]; b.Prediction != nil || b.Error == nil || b.Error.Code != int(codes.InvalidArgument) || b.ID != "b" {
		t.Errorf("%s", a.raw)
	}
}
