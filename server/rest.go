package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "modelgate/proto/modelgate/v1"
)

// newGateway translates REST into calls over conn.
func newGateway(ctx context.Context, conn *grpc.ClientConn) (*runtime.ServeMux, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newJSONCodec()),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash), // a model's name may hold any other character, escaped
		runtime.WithErrorHandler(restError),
		runtime.WithRoutingErrorHandler(routingError),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }), // Authorization always goes through
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
	)
	err := pb.RegisterPredictionServiceHandler(ctx, mux, conn)
	if err == nil {
		err = pb.RegisterModelServiceHandler(ctx, mux, conn)
	}
	return mux, err
}

// jsonCodec reads and writes JSON with the names of the .proto files.
type jsonCodec struct{ runtime.JSONPb }

// newJSONCodec writes zero values too: a score of 0 and `truncated: false` are answers. Absent messages stay absent.
func newJSONCodec() *jsonCodec {
	return &jsonCodec{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}}}
}

// Marshal writes a message, compact and the same every time: protojson varies its spaces on purpose.
func (c *jsonCodec) Marshal(v any) ([]byte, error) {
	b, err := c.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, b)
	return compact.Bytes(), err
}

// NewDecoder reads the whole body as one message, and nothing else.
func (c *jsonCodec) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		if len(bytes.TrimSpace(b)) == 0 {
			return io.EOF // as good as {}
		}
		return c.Unmarshal(b, v)
	})
}

// Unmarshal is strict: a field that doesn't exist is an error with its name and the place.
func (c *jsonCodec) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return json.Unmarshal(b, v)
	}
	err := protojson.Unmarshal(b, m)
	if err == nil {
		return nil
	}
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return errors.New("the body is not the JSON that this call takes: " + strings.TrimPrefix(text, "proto: ") + fields(m))
}

// fields lists the field names of a message for a sentence.
func fields(m proto.Message) string {
	fs := m.ProtoReflect().Descriptor().Fields()
	var names []string
	for i := range fs.Len() {
		names = append(names, string(fs.Get(i).Name()))
	}
	if len(names) == 0 {
		return ""
	}
	return "; its fields are " + strings.Join(names, ", ")
}

// restError writes a status as {"code", "message", "details"}.
func restError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	st := status.Convert(err)
	code := runtime.HTTPStatusFromCode(st.Code())
	var exact *runtime.HTTPStatusError
	if errors.As(err, &exact) {
		st, code = status.Convert(exact.Err), exact.HTTPStatus
	}
	if st.Code() == codes.InvalidArgument && len(st.Details()) == 0 { // made by the gateway from a body or a query that it can't read
		st = status.Convert(invalid("UNREADABLE_MESSAGE", st.Message()))
	}
	writeStatus(w, code, st)
}

func writeStatus(w http.ResponseWriter, code int, st *status.Status) {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(r.GetRetryDelay().AsDuration().Seconds()))))
		}
	}
	if code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="modelgate"`)
	}
	b, err := newJSONCodec().Marshal(st.Proto())
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"code":13,"message":"the error could not be written as JSON","details":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) //nolint:gosec // JSON, sent as JSON and with nosniff; the caller may have left
}

// refuse answers a request that goes no further, in the form of every other error.
func refuse(w http.ResponseWriter, code int, grpcCode codes.Code, reason, text string) {
	writeStatus(w, code, status.Convert(newStatus(kind{code: grpcCode, reason: reason}, text, nil)))
}

func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		refuse(w, code, codes.Unimplemented, "METHOD_NOT_ALLOWED", fmt.Sprintf("%s is not a method of this address; /docs lists what there is", r.Method))
	case http.StatusBadRequest:
		refuse(w, code, codes.InvalidArgument, "BAD_PATH", "the path has an escape that can't be read")
	default:
		refuse(w, http.StatusNotFound, codes.NotFound, "NO_SUCH_ADDRESS", "there is nothing at this address; /docs lists what there is")
	}
}
