package video_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"modelgate/inference/video"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// findFFmpeg is where the tests' ffmpeg is: the machine's, or the one that tools/setup-ffmpeg.sh fetched.
func findFFmpeg(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"ffmpeg", filepath.Join("..", "..", ".cache", "ffmpeg", "ffmpeg")} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Fatal("there is no ffmpeg: `tools/setup-ffmpeg.sh` installs it")
	return ""
}

// ffmpeg runs ffmpeg, not boxed in, and gives what it writes to its standard output.
func ffmpeg(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), findFFmpeg(t), append([]string{"-nostdin", "-v", "error", "-y"}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg %s: %v\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	return out
}

// clip makes a clip with ffmpeg: the arguments are all but the file, whose ending says the kind.
func clip(t testing.TB, ending, args string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip."+ending)
	ffmpeg(t, append(strings.Fields(args), path)...)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newDecoder(t testing.TB, o video.DecoderOptions) *video.Decoder {
	t.Helper()
	d, err := video.NewDecoder(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// bundle writes a bundle's configuration files.
func bundle(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, files map[string]string, o video.Options) *video.Encoder {
	t.Helper()
	e, err := video.Open(bundle(t, files), o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// videoMAE is a bundle of a small VideoMAE: 16 frames of 224 x 224.
func videoMAE() map[string]string {
	return map[string]string{
		"config.json": `{"model_type": "videomae", "num_frames": 16, "image_size": 224}`,
		"preprocessor_config.json": `{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_normalize": true,
			"do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
			"image_processor_type": "VideoMAEImageProcessor", "resample": 2, "rescale_factor": 0.00392156862745098,
			"size": {"shortest_edge": 224}}`,
	}
}

// small is videoMAE with frames of 64 x 64, for tests of other things than resizing, which the race detector makes slow.
func small() map[string]string {
	files := videoMAE()
	for name, text := range files {
		files[name] = strings.ReplaceAll(text, "224", "64")
	}
	return files
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v; want one that is %v", err, want)
	}
}
