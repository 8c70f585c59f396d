package video_test

import (
	"fmt"
	"slices"
	"testing"

	"modelgate/inference/video"
)

// kinds are clips of many kinds, by name: the file's ending and ffmpeg's arguments.
func kinds() map[string][2]string {
	return map[string][2]string{
		"mp4, index at the end":  {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=3 -c:v libx264 -pix_fmt yuv420p"},
		"mp4, index first":       {"mp4", "-f lavfi -i testsrc2=s=320x240:r=30:d=2 -c:v libx264 -pix_fmt yuv420p -movflags +faststart"},
		"mp4, fragmented":        {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libx264 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov -g 10"},
		"mp4, with sound":        {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -f lavfi -i sine=d=2 -c:v libx264 -pix_fmt yuv420p -c:a aac -shortest"},
		"mp4, portrait":          {"mp4", "-f lavfi -i mandelbrot=s=360x640:r=24 -t 1 -c:v libx264 -pix_fmt yuv420p"},
		"mp4, odd size":          {"mp4", "-f lavfi -i testsrc2=s=321x241:r=25:d=1 -c:v libx264 -pix_fmt yuv444p"},
		"mp4, no B-frames":       {"mp4", "-f lavfi -i testsrc2=s=256x256:r=25:d=1 -c:v libx264 -pix_fmt yuv420p -bf 0"},
		"mp4, full range":        {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -vf scale=out_range=full -c:v libx264 -pix_fmt yuvj420p"},
		"mp4, interlaced":        {"mp4", "-f lavfi -i testsrc2=s=320x240:r=50:d=2 -vf interlace -c:v libx264 -pix_fmt yuv420p -flags +ilme+ildct"},
		"mp4, 10 bits":           {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v libx264 -pix_fmt yuv420p10le"},
		"mp4, hevc":              {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p"},
		"mp4, mpeg4":             {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v mpeg4 -bf 2"},
		"mp4, av1":               {"mp4", "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -c:v libaom-av1 -cpu-used 8 -pix_fmt yuv420p"},
		"mp4, variable rate":     {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=3 -vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr -c:v libx264 -pix_fmt yuv420p"},
		"mp4, mean interval 3/2": {"mp4", "-f lavfi -i testsrc=s=200x150:r=15:d=1 -c:v libx264 -pix_fmt yuv420p -video_track_timescale 90000"},
		"mov":                    {"mov", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libx264 -pix_fmt yuv422p"},
		"mov, mjpeg":             {"mov", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v mjpeg -pix_fmt yuvj420p"},
		"webm, vp8":              {"webm", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libvpx -b:v 300k -auto-alt-ref 1 -lag-in-frames 16 -deadline realtime -cpu-used 4"},
		"webm, vp9":              {"webm", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libvpx-vp9 -b:v 300k -deadline realtime -cpu-used 8"},
		"mkv":                    {"mkv", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libx264 -pix_fmt yuv420p"},
		"avi, mpeg4":             {"avi", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v mpeg4 -bf 2"},
		"avi, h264":              {"avi", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -c:v libx264 -pix_fmt yuv420p"},
		"gif":                    {"gif", "-f lavfi -i testsrc2=s=160x120:r=10:d=3"},
		"one frame":              {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -frames:v 1 -c:v libx264 -pix_fmt yuv420p"},
		"five frames":            {"mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -frames:v 5 -c:v libx264 -pix_fmt yuv420p"},
	}
}

// whole decodes every frame of a clip.
func whole(t *testing.T, ending string, data []byte, width, height int) [][]byte {
	t.Helper()
	path := writeTemp(t, "clip."+ending, data)
	filter := fmt.Sprintf("scale=%d:%d:flags=bilinear:interl=-1:in_h_chr_pos=0", width, height)
	out := ffmpeg(t, "-noautorotate", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", filter, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
	return slices.Collect(slices.Chunk(out, width*height*3))
}

func TestFrames(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	for name, kind := range kinds() {
		t.Run(name, func(t *testing.T) {
			data := clip(t, kind[0], kind[1])
			compareFrames(t, d, kind[0], data)
		})
	}
}

// compareFrames sees that the frames chosen from an encoded clip are those chosen from all its frames, decoded one by one.
func compareFrames(t *testing.T, d *video.Decoder, ending string, data []byte) {
	t.Helper()
	width, height := sizeOf(t, writeTemp(t, "clip."+ending, data))
	frames := whole(t, ending, data, width, height)
	for _, sampling := range []video.Sampling{video.Linspace, video.HF} {
		e := open(t, small(), video.Options{Decoder: d, Sampling: sampling})
		got, err := e.Encode(t.Context(), video.Clip{Encoded: data})
		if err != nil {
			t.Fatal(err)
		}
		want, err := e.Encode(t.Context(), video.Clip{Raw: &video.Raw{RGB: slices.Concat(frames...), Width: width, Height: height}})
		if err != nil {
			t.Fatal(err)
		}
		if got.Frames != len(frames) || got.Repeated != (len(frames) < 16) {
			t.Errorf("%s: %d frames, repeated %v; want %d", sampling, got.Frames, got.Repeated, len(frames))
		}
		if !slices.Equal(got.Shape, []int64{16, 3, 64, 64}) || !slices.Equal(got.Data, want.Data) {
			t.Errorf("%s: the tensor isn't that of the chosen frames", sampling)
		}
	}
}
