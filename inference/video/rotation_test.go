package video_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"modelgate/inference/video"
)

// matrices are display matrices: what the container says of how frames are to be shown. Each has the four numbers that turn
// and mirror; swaps says whether width and height change places.
func matrices() map[string]struct {
	m     [4]int32
	swaps bool
} {
	return map[string]struct {
		m     [4]int32
		swaps bool
	}{
		"as it is":                 {[4]int32{1, 0, 0, 1}, false},
		"a quarter right":          {[4]int32{0, 1, -1, 0}, true},
		"half":                     {[4]int32{-1, 0, 0, -1}, false},
		"a quarter left":           {[4]int32{0, -1, 1, 0}, true},
		"mirrored":                 {[4]int32{-1, 0, 0, 1}, false},
		"upside down":              {[4]int32{1, 0, 0, -1}, false},
		"mirrored, quarter right":  {[4]int32{0, 1, 1, 0}, true},
		"mirrored, a quarter left": {[4]int32{0, -1, -1, 0}, true},
	}
}

// withMatrix is an mp4 with another display matrix in the header of its track.
func withMatrix(t *testing.T, mp4 []byte, m [4]int32) []byte {
	t.Helper()
	const before = 4 + 4 + 20 + 16 // of the box: its name, version and flags, times and id and length, layers and volume
	at := bytes.Index(mp4, []byte("tkhd\x00"))
	if at < 0 {
		t.Fatal("there is no track")
	}
	turned := bytes.Clone(mp4)
	for i, v := range []int32{m[0] << 16, m[1] << 16, 0, m[2] << 16, m[3] << 16, 0, 0, 0, 1 << 30} {
		binary.BigEndian.PutUint32(turned[at+before+4*i:], uint32(v))
	}
	return turned
}

// TestRotation sees that clips come out as ffmpeg turns them, or as they are stored, as is asked for.
func TestRotation(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	stored := clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=16:d=1 -c:v libx264 -pix_fmt yuv420p")
	ignores := open(t, small(), video.Options{Decoder: d})
	applies := open(t, small(), video.Options{Decoder: d, Rotation: video.ApplyRotation})
	plain, err := ignores.Encode(t.Context(), video.Clip{Encoded: stored})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, c := range matrices() {
		t.Run(name, func(t *testing.T) {
			turned := withMatrix(t, stored, c.m)
			got, err := ignores.Encode(t.Context(), video.Clip{Encoded: turned})
			if err != nil || !slices.Equal(got.Data, plain.Data) {
				t.Errorf("%v, or rotation isn't ignored", err)
			}
			width, height := 160, 120
			if c.swaps {
				width, height = height, width
			}
			path := writeTemp(t, "turned.mp4", turned)
			filter := fmt.Sprintf("scale=%d:%d:flags=bilinear:interl=-1:in_h_chr_pos=0", width, height)
			rgb := ffmpeg(t, "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", filter, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
			want, err := applies.Encode(t.Context(), video.Clip{Raw: &video.Raw{RGB: rgb, Width: width, Height: height}})
			if err != nil {
				t.Fatal(err)
			}
			got, err = applies.Encode(t.Context(), video.Clip{Encoded: turned})
			if err != nil || !slices.Equal(got.Data, want.Data) {
				t.Fatalf("%v, or it isn't turned as ffmpeg turns it", err)
			}
			if other, ok := seen[fmt.Sprint(got.Data[:2000])]; ok {
				t.Errorf("it comes out as that which is %s", other)
			}
			seen[fmt.Sprint(got.Data[:2000])] = name
		})
	}
}

// TestRotatedSizeIsChecked sees that the limit of pixels holds for turned clips, and that no other rotation is taken.
func TestRotatedSizeIsChecked(t *testing.T) {
	stored := clip(t, "mp4", "-f lavfi -i testsrc2=s=64x48:r=5:d=1 -c:v libx264 -pix_fmt yuv420p")
	d := newDecoder(t, video.DecoderOptions{MaxPixels: 64*48 - 1})
	e := open(t, videoMAE(), video.Options{Decoder: d, Rotation: video.ApplyRotation})
	_, err := e.Encode(t.Context(), video.Clip{Encoded: withMatrix(t, stored, [4]int32{0, 1, -1, 0})})
	mustBe(t, err, video.ErrClip)
	if _, err := video.Open(bundle(t, videoMAE()), video.Options{Decoder: d, Rotation: "right"}); err == nil {
		t.Error("rotation: right was taken")
	}
}
