package video_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"modelgate/inference/video"
)

// references is what tools/parity/video.py wrote: what PyAV, Pillow and transformers' video processors made of the clips and
// images beside it.
type references struct {
	dir        string
	Edge, Crop int
	Frames     int
	Clips      []clipReference
	Tables     []tableReference
	Images     []imageReference
	MadeWith   map[string]string `json:"made_with"`
}

type clipReference struct {
	Clip, Sampling, Reference string
	Resample, Frames          int
}

type tableReference struct {
	Processor json.RawMessage
	Reference string
}

type imageReference struct {
	Image, Reference string
	Width, Height    int
}

// referencesDir may be changed by hand to compare at the size that models take: the script's --edge 224 --crop 224.
func referencesDir() string {
	if dir := os.Getenv("MODELGATE_VIDEO_PARITY"); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "parity")
}

func readReferences(t *testing.T) references {
	t.Helper()
	r := references{dir: referencesDir()}
	if err := json.Unmarshal(r.read(t, "index.json"), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r references) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (r references) unpack(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// levels compares grey levels: the largest difference and the mean.
func levels(got []float32, want []byte) (largest, mean float64) {
	for i, v := range got {
		d := math.Abs(float64(v) - float64(want[i]))
		largest, mean = max(largest, d), mean+d/float64(len(got))
	}
	return largest, mean
}

// TestParityOfClips holds tensors against transformers': at most one grey level on any pixel, a hundredth in the mean, and the
// same number of frames as PyAV.
func TestParityOfClips(t *testing.T) {
	d, r := newDecoder(t, video.DecoderOptions{}), readReferences(t)
	exact, clips := 0, map[string]bool{}
	for _, c := range r.Clips {
		clips[c.Clip] = true
		t.Run(c.Reference, func(t *testing.T) {
			e := open(t, map[string]string{
				"config.json": fmt.Sprintf(`{"num_frames": %d}`, r.Frames),
				"video_preprocessor_config.json": fmt.Sprintf(`{"size": {"shortest_edge": %d}, "crop_size": {"height": %d, "width": %d},
					"resample": %d, "do_rescale": false, "do_normalize": false}`, r.Edge, r.Crop, r.Crop, c.Resample),
			}, video.Options{Decoder: d, Sampling: video.Sampling(c.Sampling)})
			got, err := e.Encode(t.Context(), video.Clip{Encoded: r.read(t, c.Clip)})
			if err != nil {
				t.Fatal(err)
			}
			want := r.unpack(t, c.Reference)
			if got.Frames != c.Frames || len(got.Data) != len(want) {
				t.Fatalf("%d frames and %d values; want %d and %d", got.Frames, len(got.Data), c.Frames, len(want))
			}
			largest, mean := levels(got.Data, want)
			mostly, worst := 0.01, 1.0
			if c.Clip == "ten-bit.mp4" {
				mostly, worst = 2, 50 // ffmpeg 5.1 makes other colours of ten bits; 9.0 the same ones
			}
			if largest > worst || mean > mostly {
				t.Errorf("differs by up to %v grey levels, %.4f in the mean", largest, mean)
			}
			if largest == 0 {
				exact++
			}
		})
	}
	if len(clips) < 25 {
		t.Errorf("%d clips are compared; want 25 at least", len(clips))
	}
	t.Logf("%d of %d are the same to the bit (references made with %v)", exact, len(r.Clips), r.MadeWith)
}

// TestParityOfValues holds rescaling and normalisation against transformers', to the bit.
func TestParityOfValues(t *testing.T) {
	d, r := newDecoder(t, video.DecoderOptions{}), readReferences(t)
	frame := make([]byte, 0, 256*3)
	for v := range 256 {
		frame = append(frame, byte(v), byte(v), byte(v))
	}
	for _, table := range r.Tables {
		t.Run(table.Reference, func(t *testing.T) {
			e := open(t, map[string]string{"preprocessor_config.json": string(table.Processor)}, video.Options{Decoder: d, Frames: 1})
			got, err := e.Encode(t.Context(), video.Clip{Raw: &video.Raw{RGB: frame, Width: 16, Height: 16}})
			if err != nil {
				t.Fatal(err)
			}
			want := floats(r.unpack(t, table.Reference))
			if !slices.Equal(got.Data, want) {
				t.Errorf("values differ: %v; want %v", got.Data[:4], want[:4])
			}
		})
	}
}

func floats(data []byte) []float32 {
	all := make([]float32, len(data)/4)
	for i := range all {
		b := data[4*i:]
		all[i] = math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
	}
	return all
}

// TestParityOfImages holds PNG files against Pillow to the bit, and JPEG files closely: image/jpeg rounds a little otherwise than
// libjpeg. Were halved colours repeated as image/jpeg does, they would differ by up to 75 levels.
func TestParityOfImages(t *testing.T) {
	d, r := newDecoder(t, video.DecoderOptions{}), readReferences(t)
	for _, image := range r.Images {
		t.Run(image.Image, func(t *testing.T) {
			e := open(t, map[string]string{"preprocessor_config.json": fmt.Sprintf(`{"size": {"height": %d, "width": %d}, "do_rescale": false,
				"do_normalize": false}`, image.Height, image.Width)}, video.Options{Decoder: d, Frames: 1})
			got, err := e.Encode(t.Context(), video.Clip{Images: [][]byte{r.read(t, image.Image)}})
			if err != nil {
				t.Fatal(err)
			}
			mostly, worst := 0.0, 0.0
			if filepath.Ext(image.Image) == ".jpg" {
				mostly, worst = 0.06, 3
			}
			if largest, mean := levels(got.Data, planes(r.unpack(t, image.Reference))); largest > worst || mean > mostly {
				t.Errorf("differs by up to %v grey levels, %.4f in the mean", largest, mean)
			}
		})
	}
}

// planes puts a picture's pixels one colour after the other.
func planes(pixels []byte) []byte {
	all := make([]byte, 0, len(pixels))
	for c := range 3 {
		for i := c; i < len(pixels); i += 3 {
			all = append(all, pixels[i])
		}
	}
	return all
}
