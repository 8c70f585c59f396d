package s3_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"modelgate/s3"
)

// FuzzListing: whatever an endpoint answers to a listing, what comes of it is entries, as many as are wanted, or one of our errors, which is short.
func FuzzListing(f *testing.F) {
	page := func(inner string) []byte {
		return []byte(`<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>models</Name><Prefix>m/</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>` +
			inner + `</ListBucketResult>`)
	}
	one := `<Contents><Key>m/model.onnx</Key><LastModified>2026-11-28T00:00:00.000Z</LastModified><ETag>"a"</ETag><Size>3</Size></Contents>`
	for _, inner := range []string{
		"", one, one + one, `<IsTruncated>true</IsTruncated>` + one, `<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>` + one,
		`<Contents><Key>other/model.onnx</Key><Size>3</Size></Contents>`, `<Contents><Key>m/../../x</Key><Size>-1</Size></Contents>`,
		`<Contents><Key>m/a</Key><Size>99999999999999999999</Size></Contents>`, `<CommonPrefixes><Prefix>m/sub/</Prefix></CommonPrefixes>`, `<EncodingType>url</EncodingType><Contents><Key>m/%2e%2e%2fx</Key></Contents>`,
	} {
		f.Add(200, page(inner))
	}
	f.Add(404, []byte(`<Error><Code>NoSuchBucket</Code><Message>there is none</Message></Error>`))
	f.Add(200, []byte(`<Error><Code>SlowDown</Code></Error>`))
	f.Add(500, []byte(`<html>`))
	var status int
	var body []byte
	var asked int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		if asked > 1 { // a listing without end is ended by time, which would take too long here
			_, _ = w.Write(page("<IsTruncated>false</IsTruncated>"))
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	e, err := s3.Open(context.Background(), s3.Options{Endpoint: server.URL, AccessKey: "me", SecretKey: "s"})
	if err != nil {
		f.Fatal(err)
	}
	const enough = 50
	stop := errors.New("enough")
	f.Fuzz(func(t *testing.T, code int, answer []byte) {
		if code < 200 || code > 599 || len(answer) > 64<<10 {
			return
		}
		status, body, asked = code, answer, 0
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		entries := 0
		err := e.List(ctx, s3.Name{Bucket: "models", Key: "m"}, func(s3.Entry) error {
			if entries++; entries == enough {
				return stop
			}
			return nil
		})
		switch {
		case entries > enough:
			t.Errorf("%d entries, after %d were enough", entries, enough)
		case errors.Is(err, stop) != (entries == enough):
			t.Errorf("%d entries and %v", entries, err)
		case err == nil || errors.Is(err, stop):
		case ctx.Err() != nil:
			t.Errorf("it goes on: %v", err)
		case len(err.Error()) > 1000:
			t.Errorf("an error of %d bytes: %.1000v", len(err.Error()), err)
		}
	})
}
