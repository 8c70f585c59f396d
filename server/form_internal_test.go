package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"

	pb "modelgate/proto/modelgate/v1"
)

// A sentUpload keeps what is sent: the stream's other end is no part of reading a form.
type sentUpload struct {
	header *pb.PredictRequest // the last one
	clip   []byte
	chunks []int
	early  bool // a chunk came before a header
}

func (s *sentUpload) Send(m *pb.UploadPredictRequest) error {
	if h := m.GetHeader(); h != nil {
		s.header = &pb.PredictRequest{Model: h.GetModel(), Id: h.GetId(), Text: h.Text, TopK: h.GetTopK()}
		return nil
	}
	s.early = s.early || s.header == nil
	s.clip = append(s.clip, m.GetChunk()...)
	s.chunks = append(s.chunks, len(m.GetChunk()))
	return nil
}
func (*sentUpload) CloseAndRecv() (*pb.UploadPredictResponse, error) { return nil, io.EOF }
func (*sentUpload) Header() (metadata.MD, error)                     { return nil, nil }
func (*sentUpload) Trailer() metadata.MD                             { return nil }
func (*sentUpload) CloseSend() error                                 { return nil }
func (*sentUpload) Context() context.Context                         { return context.Background() }
func (*sentUpload) SendMsg(any) error                                { return nil }
func (*sentUpload) RecvMsg(any) error                                { return io.EOF }

const fuzzBoundary = "b"

// FuzzForm: a form is refused with a status of a caller's error, or it is what the standard library reads of it: each field once, the clip whole, in chunks
// that a message holds.
func FuzzForm(f *testing.F) {
	part := func(name, content string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + content + "\r\n"
	}
	for _, s := range []string{
		part("video", "clip") + "--b--\r\n",
		part("text", "good") + part("id", "7") + part("top_k", "2") + part("video", "\x00\xff\r\n--") + "--b--",
		part("video", "clip") + part("text", "late") + "--b--\r\nepilogue",
		part("video", "clip") + part("video", "twice") + "--b--\r\n",
		part("text", "\xff") + "--b--\r\n", part("top_k", "9999999999") + "--b--", part("", "x") + "--b--", part("other", "x") + "--b--",
		"--b\r\nContent-Disposition: form-data; name=video; filename=\"a\x1b[31m.mp4\"\r\nContent-Type: video/mp4\r\n\r\nclip\r\n--b--\r\n",
		"--b\r\nContent-Disposition: form-data; name=video\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=00\r\n--b--\r\n",
		"preamble\r\n" + part("video", "") + "--b--\r\n", part("video", "cut"), "--b--\r\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		limits := Limits{MessageBytes: 64 << 10}.withDefaults()
		sent := &sentUpload{}
		m := &media{limits: limits, req: &pb.PredictRequest{Model: "video"}, given: make(map[string]bool), upload: sent,
			body: newMediaBody(bytes.NewReader(body), http.NewResponseController(httptest.NewRecorder()), limits)}
		err := m.form(fuzzBoundary)
		if err == nil {
			err = m.finish()
		}
		if sent.early || slices.Max(append(sent.chunks, 0)) > limits.MessageBytes {
			t.Errorf("chunks of %v, one before the header: %v", sent.chunks, sent.early)
		}
		if err != nil {
			var refused *runtime.HTTPStatusError
			if !errors.As(err, &refused) || refused.HTTPStatus < 400 || refused.HTTPStatus > 499 || len(err.Error()) > 1000 || !utf8.ValidString(err.Error()) {
				t.Errorf("%T: %.1000v", err, err)
			}
			return
		}
		sameForm(t, body, sent)
	})
}

// sameForm compares with what mime/multipart makes of a form.
func sameForm(t *testing.T, body []byte, sent *sentUpload) {
	t.Helper()
	want := map[string]string{}
	for r := multipart.NewReader(bytes.NewReader(append(bytes.Clone(body), "\r\n"...)), fuzzBoundary); ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%q is taken, and no form: %v", body, err)
		}
		content, err := io.ReadAll(p)
		if _, twice := want[p.FormName()]; err != nil || twice {
			t.Fatalf("%q: %q, twice: %v, %v", body, p.FormName(), twice, err)
		}
		want[p.FormName()] = string(content)
	}
	got := map[string]string{"video": string(sent.clip)}
	if sent.header.Text != nil {
		got["text"] = sent.header.GetText()
	}
	for name, is := range map[string]string{"id": sent.header.GetId(), "top_k": strconv.Itoa(int(sent.header.GetTopK()))} {
		if _, ok := want[name]; ok {
			got[name] = is
		}
	}
	for name, value := range want {
		if k, err := strconv.Atoi(value); name == "top_k" && err == nil {
			value = strconv.Itoa(k) // "+2", "002"
		}
		if got[name] != value || len(got) != len(want) {
			t.Errorf("%q: the field %s is %q, want %q; fields %d, want %d", body, name, got[name], value, len(got), len(want))
		}
	}
	if strings.Contains(sent.header.GetId(), "\x00") && !strings.Contains(string(body), "\x00") {
		t.Error("a NUL from nowhere")
	}
}
