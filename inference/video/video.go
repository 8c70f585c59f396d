// Package video turns a clip into the tensor that a video model takes.
//
// An Encoder belongs to one bundle: its files say how many frames are chosen, how, and what is done to their pixels. A Decoder
// belongs to the process: it runs ffmpeg, a few at a time, each in a box that can read nothing but the clip.
package video

import (
	"errors"
	"time"
)

var (
	// ErrClip says that the clip is at fault: it can't be decoded, has no frames or is over a limit.
	ErrClip = errors.New("bad clip")
	// ErrConfig says that the bundle's files don't say how to prepare a clip, or say something that can't be done.
	ErrConfig = errors.New("bad video configuration")
	// ErrBusy says that too many clips wait to be decoded already, or that the machine has no time for this one: later may work.
	ErrBusy = errors.New("too busy to decode clips")
	// ErrClosed says that the Decoder was closed.
	ErrClosed = errors.New("the video decoder is closed")
)

// A Clip is a video in one of three forms. Exactly one field is set.
type Clip struct {
	Encoded []byte   // a file: mp4, mov, webm, mkv, avi or gif
	Images  [][]byte // frames as JPEG or PNG files, in order
	Raw     *Raw     // frames as bare pixels
}

// Raw are frames one after another, each Height rows of Width pixels of three bytes: red, green, blue.
type Raw struct {
	RGB           []byte
	Width, Height int
}

// A Tensor is a clip as a model takes it, without the batch axis. Callers share it: it is never written to.
type Tensor struct {
	Shape    []int64
	Data     []float32
	Frames   int           // how many frames the clip has
	Repeated bool          // the clip has fewer frames than the model takes: some stand there more than once
	Decode   time.Duration // from the first byte read to the last pixel written, without the wait for a turn
}

// A frame is one picture: rows of pixels, three bytes each.
type frame struct {
	rgb           []byte
	width, height int
}

const channels = 3
