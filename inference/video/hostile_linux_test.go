package video_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"modelgate/inference/video"
)

// hostileFiles are files that make an ffmpeg left to itself read other files, connect somewhere, or work for hours. path is a
// video that a file could name.
func hostileFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	canary := filepath.Base(path)
	good := clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=1 -c:v libx264 -pix_fmt yuv420p -movflags +faststart")
	return map[string][]byte{
		"empty":           {},
		"text":            []byte("this is no video\n"),
		"html":            []byte("<html><body>404</body></html>"),
		"random":          bytes.Repeat([]byte{0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15}, 4096),
		"hls":             []byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://" + path + "\n#EXT-X-ENDLIST\n"),
		"hls, relative":   []byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + canary + "\n#EXT-X-ENDLIST\n"),
		"hls, network":    []byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n"),
		"concat":          []byte("ffconcat version 1.0\nfile '" + path + "'\n"),
		"concat protocol": []byte("concat:" + path + "|" + path),
		"dash": []byte(`<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">` +
			`<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>file://` + path +
			`</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>`),
		"sdp":                  []byte("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
		"subtitles":            []byte("WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n"),
		"svg":                  []byte(`<svg xmlns="http://www.w3.org/2000/svg"><image href="file://` + path + `"/></svg>`),
		"png":                  []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"),
		"playlist behind ftyp": append([]byte("\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"), "#EXTM3U\n#EXTINF:10,\nfile://"+path+"\n"...),
		"ftyp alone":           []byte("\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"),
		"mp4, truncated index": good[:len(good)/20],
		"mp4, truncated":       good[:len(good)/2],
		"mp4, broken frames":   broken(good),
		"mp4, audio only":      clip(t, "mp4", "-f lavfi -i sine=d=1 -c:a aac"),
		"mkv header alone":     {0x1a, 0x45, 0xdf, 0xa3, 0x01, 0, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0},
		"avi header alone":     []byte("RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrlavih"),
		"gif, huge":            hugeGIF(),
		"reference file":       referenceMovie(path),
		"mp4, other codec":     clip(t, "mov", "-f lavfi -i testsrc2=s=64x64:r=5:d=1 -c:v qtrle"),
		"mp4, huge frames":     clip(t, "mp4", "-f lavfi -i color=s=8192x8192:r=1:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"),
		"mkv, many frames":     clip(t, "mkv", "-f lavfi -i color=s=16x16:r=1000:d=20 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"),
		"mkv, 20 minutes":      clip(t, "mkv", "-f lavfi -i color=s=16x16:r=1:d=1200 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"),
	}
}

// broken overwrites the middle of a clip's frames.
func broken(good []byte) []byte {
	bad := bytes.Clone(good)
	for i := len(bad) / 2; i < len(bad)*3/4; i++ {
		bad[i] = byte(i * 31)
	}
	return bad
}

// hugeGIF says that it has 65535 x 65535 pixels.
func hugeGIF() []byte {
	return []byte("GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;")
}

// referenceMovie is a QuickTime file that names another one instead of holding a movie.
func referenceMovie(path string) []byte {
	box := func(kind string, body ...[]byte) []byte {
		data := bytes.Join(body, nil)
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(data)+8)), kind...), data...)
	}
	url := append([]byte("file://"+path), 0)
	rdrf := box("rdrf", []byte{0, 0, 0, 0}, []byte("url "), binary.BigEndian.AppendUint32(nil, uint32(len(url))), url)
	return append(box("ftyp", []byte("qt  \x00\x00\x02\x00")), box("moov", box("rmra", box("rmda", rdrf)))...)
}

func TestHostileFiles(t *testing.T) {
	// The canary has no reader but us, and its time of access tells whether anybody opened and read it.
	canary := writeTemp(t, "canary.mp4", clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=1 -c:v libx264 -pix_fmt yuv420p"))
	watch := watchReads(t, canary)
	d := newDecoder(t, video.DecoderOptions{Timeout: 10 * time.Second})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	for name, data := range hostileFiles(t, canary) {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got, err := e.Encode(t.Context(), video.Clip{Encoded: data})
			if err == nil {
				t.Fatalf("it was decoded: %d frames", got.Frames)
			}
			mustBe(t, err, video.ErrClip)
			if text := err.Error(); len(text) > 400 || strings.ContainsAny(text, "\n\x1b") || strings.Contains(text, "/proc/") || strings.Contains(text, "0x7f") {
				t.Errorf("the message isn't fit for a person: %q", text)
			}
			if took := time.Since(start); took > 11*time.Second {
				t.Errorf("it took %v", took)
			}
			t.Log(err)
		})
	}
	if watch() {
		t.Error("somebody read the canary")
	}
}

func TestLimits(t *testing.T) {
	data := clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -c:v libx264 -pix_fmt yuv420p")
	pixels := make([]byte, 160*120*3)
	for name, c := range map[string]struct {
		o    video.DecoderOptions
		clip video.Clip
	}{
		"bytes":                {video.DecoderOptions{MaxClipBytes: 1000}, video.Clip{Encoded: data}},
		"pixels":               {video.DecoderOptions{MaxPixels: 160*120 - 1}, video.Clip{Encoded: data}},
		"frames":               {video.DecoderOptions{MaxFrames: 49}, video.Clip{Encoded: data}},
		"duration":             {video.DecoderOptions{MaxDuration: 1900 * time.Millisecond}, video.Clip{Encoded: data}},
		"time":                 {video.DecoderOptions{Timeout: time.Microsecond}, video.Clip{Encoded: data}},
		"memory":               {video.DecoderOptions{MaxPixels: 1 << 28, MaxMemory: 400 << 20}, video.Clip{Encoded: clip(t, "mp4", "-f lavfi -i color=s=8192x8192:r=1:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p")}},
		"raw, pixels":          {video.DecoderOptions{MaxPixels: 160*120 - 1}, video.Clip{Raw: &video.Raw{RGB: pixels, Width: 160, Height: 120}}},
		"raw, size overflows":  {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels, Width: 1 << 40, Height: 1 << 40}}},
		"raw, no whole frames": {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels[1:], Width: 160, Height: 120}}},
		"raw, no size":         {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels}}},
		"raw, no frames":       {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{Width: 160, Height: 120}}},
		"no frames":            {video.DecoderOptions{}, video.Clip{Images: [][]byte{}}},
		"images, frames":       {video.DecoderOptions{MaxFrames: 1}, video.Clip{Images: [][]byte{{1}, {2}}}},
		"image of no kind":     {video.DecoderOptions{}, video.Clip{Images: [][]byte{[]byte("hello")}}},
		"nothing":              {video.DecoderOptions{}, video.Clip{}},
		"two forms":            {video.DecoderOptions{}, video.Clip{Encoded: data, Images: [][]byte{{1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, c.o)})
			_, err := e.Encode(t.Context(), c.clip)
			mustBe(t, err, video.ErrClip)
			t.Log(err)
		})
	}
}

// TestTruncatedImages sees that half an image isn't taken for a whole one.
func TestTruncatedImages(t *testing.T) {
	e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{})})
	for _, name := range []string{"420.jpg", "420-progressive.jpg", "rgb.png"} {
		data, err := os.ReadFile(filepath.Join("testdata", "parity", name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Encode(t.Context(), video.Clip{Images: [][]byte{data[:len(data)*2/3]}})
		mustBe(t, err, video.ErrClip)
		if want := fmt.Sprint("image ", 0); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want it to say which image", name, err)
		}
	}
}

// TestManyPasses sees that a JPEG with a million passes over its pixels takes no longer than a clip may.
func TestManyPasses(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "parity", "420-progressive.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(data, []byte{0xff, 0xda})
	length := bytes.Index(data[begin+2:], []byte{0xff, 0xc4}) + 2 // the next pass begins with its tables
	pass := data[begin : begin+length]
	bomb := slices.Concat(data[:begin], bytes.Repeat(pass, 60<<20/len(pass)), data[begin+length:])
	d := newDecoder(t, video.DecoderOptions{Timeout: 200 * time.Millisecond})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	start := time.Now()
	_, err = e.Encode(t.Context(), video.Clip{Images: [][]byte{bomb}})
	mustBe(t, err, video.ErrClip)
	if took := time.Since(start); took > 5*time.Second || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("it took %v: %v", took, err)
	}
}
