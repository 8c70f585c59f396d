package video

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
)

// A container is a kind of file and what ffmpeg calls its reader.
type container string

const (
	mov      container = "mov" // mp4 too
	matroska container = "matroska"
	avi      container = "avi"
	gif      container = "gif"
)

// sniff tells a clip's container from its first bytes. ffmpeg is never asked to: its own guess takes playlists, which name
// other files, for videos.
func sniff(clip []byte) (container, error) {
	switch {
	case len(clip) == 0:
		return "", fmt.Errorf("%w: it is empty", ErrClip)
	case bytes.HasPrefix(clip, []byte{0x1a, 0x45, 0xdf, 0xa3}):
		return matroska, nil
	case len(clip) >= 12 && string(clip[:4]) == "RIFF" && string(clip[8:12]) == "AVI ":
		return avi, nil
	case bytes.HasPrefix(clip, []byte("GIF87a")), bytes.HasPrefix(clip, []byte("GIF89a")):
		return gif, nil
	case isMov(clip):
		return mov, nil
	}
	kind, _, _ := strings.Cut(http.DetectContentType(clip), ";")
	if strings.HasPrefix(kind, "image/") {
		return "", fmt.Errorf("%w: it is %s, not a video: send frames as a list of images", ErrClip, kind)
	}
	if kind == "application/octet-stream" {
		kind = "of an unknown kind"
	}
	return "", fmt.Errorf("%w: it is %s, not mp4, mov, webm, mkv, avi or gif", ErrClip, kind)
}

// isMov says whether clip begins with a box that an mp4 or a QuickTime file begins with. Old QuickTime files have no ftyp.
func isMov(clip []byte) bool {
	if len(clip) < 16 {
		return false
	}
	size := binary.BigEndian.Uint32(clip)
	switch string(clip[4:8]) {
	case "ftyp", "styp":
		return size >= 8 && size < 1<<16
	case "moov", "wide", "free", "skip", "pnot":
		return size >= 8
	case "mdat":
		return size >= 8 || size == 1 || size == 0
	}
	return false
}
