package mlflow_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/modelstore/mlflow"
	"modelgate/s3"
)

// listed is one line of a bucket's listing, below the version's folder.
func listed(key string, size int) string {
	return fmt.Sprintf(`<Contents><Key>v/m/%s</Key><Size>%d</Size><ETag>"tag"</ETag></Contents>`, key, size)
}

// scriptedStore answers listings with objects, and everything else with get.
func scriptedStore(t *testing.T, objects string, get http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("list-type") != "" {
			_, _ = fmt.Fprintf(w, `<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>`, objects)
			return
		}
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		get(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// fetchFrom fetches a version that the registry says to be in a bucket.
func fetchFrom(t *testing.T, store *httptest.Server, dir string, change func(*mlflow.Options)) error {
	t.Helper()
	e, err := s3.Open(t.Context(), s3.Options{Endpoint: store.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	o := quick(serve(t, version3(paths{getURI: {jsonBody(200, `{"artifact_uri": "s3://models/v/m"}`)}})).URL)
	o.S3, o.S3Prefixes = e, s3.Prefixes{{Bucket: "models"}}
	if change != nil {
		change(&o)
	}
	return open(t, o).Fetch(t.Context(), judgedVersion, dir, nil)
}

func TestBadListingsOfABucket(t *testing.T) {
	many := strings.Builder{}
	for i := range 11 {
		many.WriteString(listed(fmt.Sprint("f", i), 1))
	}
	for name, c := range map[string]struct{ objects, want string }{
		"nothing":             {"", "there are none"},
		"only markers":        {listed("", 0) + listed("d/", 0), "there are none"},
		"up":                  {listed("../x", 1), "no file name"},
		"up inside":           {listed("d/../../x", 1), "no file name"},
		"absolute":            {listed("/etc/passwd", 1), "no file name"},
		"here":                {listed("./x", 1), "no file name"},
		"encoded":             {listed("..%2fx", 1), "hides a path"},
		"backslashes":         {listed(`..\x`, 1), "hides a path"},
		"up as a marker":      {listed("../", 0), "no file name"},
		"our own folder":      {listed(".part/x", 1), "is taken"},
		"twice":               {listed("x", 1) + listed("x", 1), "listed twice"},
		"a file as folder":    {listed("x", 1) + listed("x/y", 1), "as a file and as a folder"},
		"a folder as file":    {listed("x/y", 1) + listed("x", 1), "listed twice"},
		"a marker with bytes": {listed("x/", 5), "with 5 bytes"},
		"negative":            {listed("x", -1), "-1 bytes"},
		"too many":            {many.String(), "more than 10 objects"},
		"markers without end": {strings.Repeat(listed("d/", 0), 11), "more than 10 objects"},
		"too many folders":    {listed("a/b/c/d/e/x", 1) + listed("f/g/h/i/j/x", 1), "more than 10 files and folders"},
		"too much":            {listed("x", 600) + listed("y", 600), "more than 1000 bytes"},
		"too deep":            {listed(strings.Repeat("d/", 17)+"x", 1), "more than 10 files and folders"},
		"long":                {listed(strings.Repeat("n", 256), 1), "no file name"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := scriptedStore(t, c.objects, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			err := fetchFrom(t, store, dir, func(o *mlflow.Options) { o.MaxFiles, o.MaxBytes = 10, 1000 })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("something was written: %v, %v", entries, err)
			}
		})
	}
}

// stored sends content as S3 does, from where it is asked to, and hangs up after so many bytes, if that isn't 0.
func stored(content, etag string, cut int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		}
		rest := content[from:]
		w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if cut > 0 {
			_, _ = w.Write([]byte(rest[:min(cut, len(rest))]))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(rest))
	}
}

func TestBadDownloadsFromABucket(t *testing.T) {
	const content = weights
	whole := stored(content, `"tag"`, 0)
	status := func(n int) http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) } }
	elsewhere := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	}
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ignoresRange := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		whole(w, r)
	}
	for name, c := range map[string]struct {
		answers []http.HandlerFunc // one after the other, the last for ever
		want    string             // "": it arrives
		asked   int32
	}{
		"well":                 {[]http.HandlerFunc{whole}, "", 1},
		"cut twice":            {[]http.HandlerFunc{stored(content, `"tag"`, 10), stored(content, `"tag"`, 10), whole}, "", 3},
		"overloaded, then":     {[]http.HandlerFunc{status(503), whole}, "", 2},
		"always overloaded":    {[]http.HandlerFunc{status(503)}, "503", 3},
		"redirects":            {[]http.HandlerFunc{elsewhere}, "redirects", 3},
		"gone":                 {[]http.HandlerFunc{status(404)}, "there is no such object", 1},
		"gone mid-way":         {[]http.HandlerFunc{stored(content, `"tag"`, 10), status(404)}, "there is no such object", 2},
		"another size":         {[]http.HandlerFunc{stored(content+"x", `"tag"`, 0)}, "lists with 36", 1},
		"another ETag":         {[]http.HandlerFunc{stored(content, `"other"`, 0)}, "has changed", 1},
		"another ETag mid-way": {[]http.HandlerFunc{stored(content, `"tag"`, 10), stored(content, `"other"`, 0)}, "has changed", 2},
		"ignores the range":    {[]http.HandlerFunc{stored(content, `"tag"`, 10), ignoresRange}, "range", 2},
		"never begins":         {[]http.HandlerFunc{wait}, "didn't begin to send", 3},
		"begins in time, then": {[]http.HandlerFunc{wait, whole}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			store := scriptedStore(t, listed("model.onnx", len(content)), func(w http.ResponseWriter, r *http.Request) {
				n := int(asked.Add(1))
				c.answers[min(n, len(c.answers))-1](w, r)
			})
			dir := t.TempDir()
			err := fetchFrom(t, store, dir, func(o *mlflow.Options) { o.Tries, o.HeaderTimeout = 3, 500*time.Millisecond })
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) || asked.Load() != c.asked {
				t.Errorf("asked %d times, got %v; want %d, %q", asked.Load(), err, c.asked, c.want)
			}
			got, rerr := os.ReadFile(filepath.Join(dir, "model.onnx"))
			if (rerr == nil) != (c.want == "") || rerr == nil && string(got) != content {
				t.Errorf("the file has %q, %v", got, rerr)
			}
		})
	}
}

// A file that an earlier fetch completed is kept if it is still the object that is listed; else the version would be a mixture.
func TestWholeFilesOfABucketAreKeptWhileTheyStayTheSame(t *testing.T) {
	const before, after = "the weights of yesterday", "the weights of last week"
	objects := listed("model.onnx", len(before)) + listed("config.json", 2)
	dir, one := t.TempDir(), func(o *mlflow.Options) { o.ParallelFiles = 1 }
	fetch := func(objects string, get http.HandlerFunc) error {
		return fetchFrom(t, scriptedStore(t, objects, get), dir, one)
	}
	models := 0
	serving := func(model, etag string, config http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "config.json") {
				config(w, r)
				return
			}
			models++
			stored(model, etag, 0)(w, r)
		}
	}
	gone := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }
	for range 2 {
		if err := fetch(objects, serving(before, `"tag"`, gone)); err == nil || models != 1 {
			t.Fatalf("got %v after %d downloads of the model, want an error after one", err, models)
		}
	}
	err := fetch(strings.ReplaceAll(objects, "tag", "new"), serving(after, `"new"`, stored("{}", `"new"`, 0)))
	got, rerr := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err != nil || rerr != nil || string(got) != after {
		t.Errorf("got %q, %v, %v; want %q, which is what is listed beside the new config.json", got, err, rerr, after)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v", entries, err)
	}
}
