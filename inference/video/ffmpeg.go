package video

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// codecs are the decoders that a clip may ask for. Audio has none: it isn't read.
const codecs = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,libaom-av1,gif,mpeg4,mjpeg"

// clipFD is where ffmpeg finds the clip. Not a pipe: an mp4 with its index at the end must be read twice.
const clipFD = "/proc/self/fd/3"

// A probe is what is known of a clip before it is decoded.
type probe struct {
	codec         string
	width, height int
	frames        int
	turned        bool // frames are to be turned as the container says; the size is that after it
}

// decode gives visit the chosen frames of a clip, one at a time, in order, and returns how many frames the clip has. choose gets
// that number and gives the numbers of the frames wanted, rising. What visit gets is overwritten after it returns.
func (d *Decoder) decode(ctx context.Context, clip []byte, r Rotation, choose func(n int) []int, visit func(int, frame) error) (int, error) {
	kind, err := sniff(clip)
	if err != nil {
		return 0, err
	}
	file, err := sealed(clip)
	if err != nil {
		return 0, fmt.Errorf("hand the clip to ffmpeg: %w", err)
	}
	defer file.Close()
	p, err := d.probe(ctx, kind, file)
	if err != nil {
		return 0, err
	}
	if !p.onePerPacket(kind) {
		if p.frames, err = d.count(ctx, kind, file); err != nil {
			return 0, err
		}
	}
	if err := d.checkCount(p.frames); err != nil {
		return 0, err
	}
	if r == ApplyRotation {
		if err := d.turn(ctx, kind, file, &p); err != nil {
			return 0, err
		}
	}
	err = d.extract(ctx, kind, file, p, choose(p.frames), visit)
	if !errors.Is(err, errFewer) {
		return p.frames, err
	}
	// Some packets hold no frame that is shown: only decoding them all tells how many do.
	if p.frames, err = d.count(ctx, kind, file); err != nil {
		return 0, err
	}
	if err := d.checkCount(p.frames); err != nil {
		return 0, err
	}
	if err = d.extract(ctx, kind, file, p, choose(p.frames), visit); errors.Is(err, errFewer) {
		err = fmt.Errorf("%w: %w", ErrClip, err)
	}
	return p.frames, err
}

var errFewer = errors.New("it has fewer frames than its index says")

func (d *Decoder) checkCount(n int) error {
	if n == 0 {
		return fmt.Errorf("%w: it has no frames", ErrClip)
	}
	return d.checkFrames(int64(n))
}

// onePerPacket says whether each packet of such a clip is a frame that is shown. VP8 has packets that are only referred to, and
// avi files may have several frames in one.
func (p probe) onePerPacket(kind container) bool {
	switch p.codec {
	case "h264", "hevc", "vp9", "av1":
		return kind == mov || kind == matroska
	case "gif":
		return kind == gif
	}
	return false
}

// input are the arguments that open the clip, and nothing else.
func (d *Decoder) input(kind container, turned bool) []string {
	args := []string{
		"-nostdin", "-hide_banner", "-v", "error", "-xerror", "-threads", "1", "-filter_threads", "1",
		"-protocol_whitelist", "file", "-format_whitelist", string(kind), "-codec_whitelist", codecs,
		"-max_pixels", strconv.FormatInt(d.o.MaxPixels, 10),
	}
	if !turned {
		args = append(args, "-noautorotate")
	}
	return append(args, "-f", string(kind), "-i", clipFD, "-map", "0:v:0")
}

// probe reads the clip's index: the size and the number of frames, without decoding them.
func (d *Decoder) probe(ctx context.Context, kind container, file *os.File) (p probe, err error) {
	args := append(d.input(kind, false), "-c", "copy", "-copyinkf", "-copypriorss", "1", "-f", "framecrc", "pipe:1")
	err = d.box.run(ctx, args, file, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		var reader packetReader
		for lines.Scan() {
			if err := reader.line(lines.Text()); err != nil {
				return err
			}
			if reader.sized {
				if err := d.checkSize(int64(reader.width), int64(reader.height)); err != nil {
					return err
				}
			}
			if err := d.checkFrames(int64(reader.frames)); err != nil {
				return err
			}
			if reader.length > d.o.MaxDuration {
				return fmt.Errorf("%w: it is longer than %v", ErrClip, d.o.MaxDuration)
			}
		}
		p = reader.probe
		return lines.Err()
	})
	if err == nil && (p.width == 0 || p.height == 0) {
		return p, fmt.Errorf("%w: it has no frames", ErrClip)
	}
	return p, err
}

// turn makes p that of the clip as it is shown. Only the first frame, decoded, tells what the container's matrix comes to.
func (d *Decoder) turn(ctx context.Context, kind container, file *os.File, p *probe) error {
	var reader packetReader
	args := append(d.input(kind, true), "-frames:v", "1", "-f", "framecrc", "pipe:1")
	err := d.box.run(ctx, args, file, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if err := reader.line(lines.Text()); err != nil {
				return err
			}
		}
		return lines.Err()
	})
	if err != nil {
		return err
	}
	p.width, p.height, p.turned = reader.width, reader.height, true
	return d.checkSize(int64(p.width), int64(p.height))
}

// A packetReader reads the lines that ffmpeg's framecrc writes.
type packetReader struct {
	probe
	sized    bool
	tick     time.Duration // of one unit of time; 0: not said
	length   time.Duration // from the first packet to the end of the last
	earliest int64
	started  bool
}

const maxTicks = int64(1) << 40

func (r *packetReader) line(text string) error {
	if key, value, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(key, "#") {
		return r.header(strings.TrimSuffix(key, " 0"), value)
	}
	fields := strings.Split(text, ",")
	if len(fields) < 6 {
		return nil
	}
	for _, f := range fields[6:] {
		flags, ok := strings.CutPrefix(strings.TrimSpace(f), "F=0x")
		if bits, err := strconv.ParseUint(flags, 16, 64); ok && err == nil && bits&packetDiscarded != 0 {
			return nil // an edit list leaves it out
		}
	}
	r.frames++
	start, ok := parseTicks(fields[2])
	if !ok {
		return nil
	}
	length, _ := parseTicks(fields[3])
	if !r.started || start < r.earliest {
		r.earliest, r.started = start, true
	}
	r.length = max(r.length, ticks(start+max(length, 0)-r.earliest, r.tick))
	return nil
}

const packetDiscarded = 4

// parseTicks reads a time. What isn't known stands there as a number near the end of the range.
func parseTicks(field string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64)
	if err != nil || n > maxTicks || n < -maxTicks {
		return 0, false
	}
	return n, true
}

// ticks is n units of time, at most the longest Duration.
func ticks(n int64, unit time.Duration) time.Duration {
	if unit > 0 && n > int64(1<<62)/int64(unit) {
		return 1 << 62
	}
	return time.Duration(n) * unit
}

func (r *packetReader) header(key, value string) error {
	var err error
	switch key {
	case "#codec_id":
		r.codec = strings.TrimSpace(value)
	case "#tb":
		var over, under int64
		if _, err = fmt.Sscanf(value, "%d/%d", &over, &under); err == nil && over > 0 && under > 0 {
			r.tick = time.Duration(float64(over) / float64(under) * float64(time.Second))
		}
	case "#dimensions":
		_, err = fmt.Sscanf(value, "%dx%d", &r.width, &r.height)
		r.sized = true
	}
	if err != nil {
		return fmt.Errorf("ffmpeg's answer %q: %w", value, err)
	}
	return nil
}

// count decodes the whole clip and counts.
func (d *Decoder) count(ctx context.Context, kind container, file *os.File) (n int, err error) {
	args := append(d.input(kind, false), "-fps_mode", "passthrough", "-f", "null", "-nostats", "-progress", "pipe:1", "-")
	err = d.box.run(ctx, args, file, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			text, ok := strings.CutPrefix(lines.Text(), "frame=")
			if !ok {
				continue
			}
			if n, err = strconv.Atoi(strings.TrimSpace(text)); err != nil {
				return fmt.Errorf("ffmpeg's answer %q: %w", lines.Text(), err)
			}
			if err := d.checkFrames(int64(n)); err != nil {
				return err
			}
		}
		return lines.Err()
	})
	return n, err
}

// extract decodes and gives visit the frames of these numbers. It is errFewer when there are not that many.
func (d *Decoder) extract(ctx context.Context, kind container, file *os.File, p probe, numbers []int, visit func(int, frame) error) error {
	var filter strings.Builder
	filter.WriteString("select='")
	for i, n := range numbers {
		if i > 0 {
			filter.WriteByte('+')
		}
		fmt.Fprintf(&filter, `eq(n\,%d)`, n)
	}
	// The flags are PyAV's: nothing more exact than that, so that pixels come out the same.
	fmt.Fprintf(&filter, "',scale=%d:%d:flags=bilinear:interl=-1:in_h_chr_pos=0", p.width, p.height)
	args := append(d.input(kind, p.turned), "-vf", filter.String(), "-fps_mode", "passthrough", "-frames:v", strconv.Itoa(len(numbers)),
		"-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1")
	return d.box.run(ctx, args, file, func(out io.Reader) error {
		f := frame{make([]byte, p.width*p.height*channels), p.width, p.height}
		for _, n := range numbers {
			if _, err := io.ReadFull(out, f.rgb); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errFewer
			} else if err != nil {
				return err
			}
			if err := visit(n, f); err != nil {
				return err
			}
		}
		return nil
	})
}
