package server_test

import (
	"bytes"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
)

// A form that is cut anywhere is refused: without the field that got lost there could be another verdict.
func TestCutForms(t *testing.T) {
	g := startClips(t, func(c *config) {
		c.options.Late = late()
		c.options.Late.Single = true // so that a clip alone has a verdict
	})
	r := form(t, field{"video", string(smallClip(t))}, field{"text", "good"})
	whole, err := io.ReadAll(r.body)
	must(t, err)
	body := func(b []byte) mediaRequest {
		r.body = bytes.NewReader(b)
		return r
	}
	const tail = 220 // from within the clip on
	for n := len(whole) - tail; n < len(whole)-len("--\r\n"); n++ {
		a := g.media(body(whole[:n]))
		if a.code != 400 || a.json["score"] != nil {
			t.Errorf("cut after %q: %d %s", whole[len(whole)-tail:n], a.code, a.raw)
		}
	}
	checkAnswer(t, g.media(body(whole[:len(whole)-4])), bad{code: codes.InvalidArgument, http: 400, says: "not a whole multipart form", reason: "BAD_FORM"})
	for name, b := range map[string][]byte{"whole": whole, "without the last end of line": whole[:len(whole)-2], "with an epilogue": append(whole[:len(whole):len(whole)], "bye"...)} {
		if a := g.media(body(b)); a.code != 200 || a.json["path"] != "PATH_FUSION" {
			t.Errorf("%s: %d %s", name, a.code, a.raw)
		}
	}
	nothingHeld(t, g)
}
