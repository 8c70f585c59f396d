package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// mediaPath takes a clip as the body, or in a form, and streams it into an UploadPredict.
const mediaPath, mediaVerb = "/v1/models/{model}:predictMedia", ":predictMedia"

// isMedia reports whether a request's body is a clip, and not JSON.
func isMedia(r *http.Request) bool {
	path := r.URL.RawPath // as the routes are found
	if path == "" {
		path = r.URL.Path
	}
	return r.Method == http.MethodPost && strings.HasSuffix(path, mediaVerb)
}

// addMedia adds the route to REST's others.
func (s *Server) addMedia(rest *runtime.ServeMux) error {
	client := pb.NewPredictionServiceClient(s.mediaConn)
	return rest.HandlePath(http.MethodPost, mediaPath, func(w http.ResponseWriter, r *http.Request, path map[string]string) {
		rc, limit := http.NewResponseController(w), s.o.Limits.UploadTime+predictTimeout
		_ = rc.SetWriteDeadline(time.Now().Add(limit + writeTime)) // only a connection that is gone has none
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		ctx, err := runtime.AnnotateContext(ctx, rest, r, pb.PredictionService_UploadPredict_FullMethodName, runtime.WithHTTPPathPattern(mediaPath))
		if err != nil {
			restError(ctx, rest, nil, w, r, err)
			return
		}
		m := &media{limits: s.o.Limits, body: newMediaBody(r.Body, rc, s.o.Limits), ended: make(chan struct{}),
			req: &pb.PredictRequest{Model: path["model"]}, given: make(map[string]bool)}
		resp, err := m.predict(ctx, client, r)
		m.body.linger()
		if err != nil {
			restError(ctx, rest, nil, w, r, mediaError(ctx, err))
			return
		}
		writeMessage(w, resp.GetPrediction())
	})
}

// media is one call: what the body says, on its way into an upload.
type media struct {
	limits Limits
	body   *mediaBody
	req    *pb.PredictRequest
	given  map[string]bool // the fields that were seen
	late   bool            // a field came after the clip

	upload grpc.ClientStreamingClient[pb.UploadPredictRequest, pb.UploadPredictResponse]
	ended  chan struct{}             // closed when resp or err is there
	resp   *pb.UploadPredictResponse //
	err    error                     //
}

// predict streams the body into an upload and returns how that ended. Whoever ends first, the body or the upload, ends the other.
func (m *media) predict(ctx context.Context, client pb.PredictionServiceClient, r *http.Request) (*pb.UploadPredictResponse, error) {
	send, err := m.kindOf(r)
	if err != nil {
		return nil, err
	}
	if err := m.query(r.URL.RawQuery); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	if m.upload, err = client.UploadPredict(ctx); err != nil {
		cancel()
		return nil, err
	}
	go m.await()
	if err = send(); err == nil {
		err = m.finish()
	}
	if err != nil {
		cancel()
	}
	<-m.ended
	cancel()
	if err != nil && !errors.Is(err, errUploadEnded) {
		return nil, err
	}
	return m.resp, m.err
}

// kindOf says what sends the body, by its type, and refuses a body that says that it is too large.
func (m *media) kindOf(r *http.Request) (send func() error, err error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	most := int64(m.limits.UploadBytes)
	switch {
	case err == nil && kind == "multipart/form-data" && params["boundary"] != "":
		most += int64(m.limits.MessageBytes)
		send = func() error { return m.form(params["boundary"]) }
	case err == nil && (strings.HasPrefix(kind, "video/") || slices.Contains([]string{"image/gif", "application/octet-stream"}, kind)):
		send = m.raw
	default:
		return nil, refusal(http.StatusUnsupportedMediaType, "NO_MEDIA", "send the clip itself, with its type, such as Content-Type: video/mp4, "+
			"or a form with the field video, as multipart/form-data")
	}
	if r.ContentLength > most {
		return nil, fmt.Errorf("%w: the body has %d bytes, more than %d", errClipTooLarge, r.ContentLength, most)
	}
	return send, nil
}

// await receives the upload's end, which nothing more of the body can change.
func (m *media) await() {
	defer close(m.ended)
	resp := &pb.UploadPredictResponse{}
	if m.err = m.upload.RecvMsg(resp); m.err == nil {
		m.resp = resp
	}
	m.body.interrupt()
}

// raw sends a body that is the clip.
func (m *media) raw() error {
	if err := m.sendHeader(); err != nil {
		return err
	}
	return m.sendClip(m.body)
}

func (m *media) sendHeader() error {
	return m.send(&pb.UploadPredictRequest{Part: &pb.UploadPredictRequest_Header{Header: m.req}})
}

// sendClip sends what r holds, in chunks. A chunk that isn't full after a second is sent as it is, so that a slow upload isn't
// taken for one that stands still.
func (m *media) sendClip(r io.Reader) error {
	buf, n, sent := make([]byte, min(128<<10, max(1, m.limits.MessageBytes/2))), 0, time.Now()
	for first := true; ; {
		k, err := r.Read(buf[n:])
		n += k
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return m.readError(err)
		}
		if n == len(buf) || n > 0 && (last || time.Since(sent) > time.Second) || last && first {
			if err := m.send(&pb.UploadPredictRequest{Part: &pb.UploadPredictRequest_Chunk{Chunk: buf[:n]}}); err != nil {
				return err
			}
			n, sent, first = 0, time.Now(), false
		}
		if last {
			return nil
		}
	}
}

func (m *media) send(msg *pb.UploadPredictRequest) error {
	err := m.upload.Send(msg)
	if errors.Is(err, io.EOF) {
		return errUploadEnded
	}
	return err
}

// finish says that nothing follows, to both sides.
func (m *media) finish() error {
	if m.late {
		if err := m.sendHeader(); err != nil {
			return err
		}
	}
	m.body.done()
	return m.upload.CloseSend()
}

// errUploadEnded says that the upload ended before the body did; what it ended with says why.
var errUploadEnded = errors.New("the upload ended")

// readError is what becomes of an error of the body.
func (m *media) readError(err error) error {
	var own *runtime.HTTPStatusError
	switch {
	case errors.Is(err, errUploadEnded), errors.Is(err, errUploadSlow), errors.As(err, &own):
		return err
	case errors.Is(err, errMediaSlow):
		return fmt.Errorf("%w: nothing came for %v, or the clip isn't whole after %v", errUploadSlow, m.limits.UploadIdle, m.limits.UploadTime)
	}
	return refusal(http.StatusBadRequest, "BODY_INCOMPLETE", "the body could not be read to its end")
}

// refusal is an error with a status of HTTP's own.
func refusal(code int, reason, text string) error {
	return &runtime.HTTPStatusError{HTTPStatus: code, Err: invalid(reason, text)}
}

// mediaError gives an upload's error the status that HTTP has for it. A body that came too slowly has ended ctx.
func mediaError(ctx context.Context, err error) error {
	for is, code := range map[error]int{errClipTooLarge: http.StatusRequestEntityTooLarge, errUploadSlow: http.StatusRequestTimeout} {
		k := ofPrediction().find(context.WithoutCancel(ctx), is)
		if errors.Is(err, is) {
			return &runtime.HTTPStatusError{HTTPStatus: code, Err: newStatus(k, err.Error(), nil)}
		}
		if reasonOf(err) == k.reason {
			return &runtime.HTTPStatusError{HTTPStatus: code, Err: err}
		}
	}
	return err
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// writeMessage writes an answer as the gateway does.
func writeMessage(w http.ResponseWriter, m *pb.PredictResponse) {
	b, err := newJSONCodec().Marshal(m)
	if err != nil {
		refuse(w, http.StatusInternalServerError, codes.Internal, "INTERNAL", "the answer could not be written as JSON")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) //nolint:gosec // JSON, sent as JSON and with nosniff; the caller may have left
}
