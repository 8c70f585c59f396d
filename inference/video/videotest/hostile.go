package videotest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// Hostile are files that make an ffmpeg left to itself read other files, connect somewhere, or take more memory than there is, by
// name. A decoder refuses every one. canary is the path of a video that some of them name, and address a host and port that others do.
func (m Maker) Hostile(ctx context.Context, canary, address string) (map[string][]byte, error) {
	good, err := m.Clip(ctx, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=1 -c:v libx264 -pix_fmt yuv420p -movflags +faststart")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"mp4, truncated index": good[:len(good)/20],
		"mp4, truncated":       good[:len(good)/2],
		"mp4, broken frames":   broken(good),
		"mkv header alone":     {0x1a, 0x45, 0xdf, 0xa3, 0x01, 0, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0},
		"avi header alone":     []byte("RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrlavih"),
		"gif, huge":            hugeGIF(),
		"reference file":       referenceMovie(canary),
	}
	addTexts(files)
	for name, p := range Playlists(canary, address) {
		files[name] = p.Data
	}
	for name, c := range map[string][2]string{
		"mp4, audio only":  {"mp4", "-f lavfi -i sine=d=1 -c:a aac"},
		"mp4, other codec": {"mov", "-f lavfi -i testsrc2=s=64x64:r=5:d=1 -c:v qtrle"},
		"mp4, huge frames": {"mp4", "-f lavfi -i color=s=8192x8192:r=1:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"},
		"mkv, many frames": {"mkv", "-f lavfi -i color=s=16x16:r=1000:d=20 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"},
		"mkv, 20 minutes":  {"mkv", "-f lavfi -i color=s=16x16:r=1:d=1200 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"},
	} {
		if files[name], err = m.Clip(ctx, c[0], c[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return files, nil
}

// addTexts adds what is no video at all, and names nothing.
func addTexts(files map[string][]byte) {
	for name, data := range map[string][]byte{
		"empty":      {},
		"text":       []byte("this is no video\n"),
		"html":       []byte("<html><body>404</body></html>"),
		"random":     bytes.Repeat([]byte{0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15}, 4096),
		"subtitles":  []byte("WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n"),
		"png":        []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"),
		"ftyp alone": []byte(ftyp),
	} {
		files[name] = data
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
	length := binary.BigEndian.AppendUint32(nil, uint32(len(url)))
	rdrf := box("rdrf", []byte{0, 0, 0, 0}, []byte("url "), length, url)
	return append(box("ftyp", []byte("qt  \x00\x00\x02\x00")), box("moov", box("rmra", box("rmda", rdrf)))...)
}

// Slow is a small clip within every limit of a decoder but that of time: 17,700 frames of nine million pixels.
func (m Maker) Slow(ctx context.Context) ([]byte, error) {
	second, err := m.Clip(ctx, "mp4", "-f lavfi -i color=s=3072x3072:r=30:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p")
	if err != nil {
		return nil, err
	}
	return m.Repeat(ctx, "mkv", second, 590)
}
