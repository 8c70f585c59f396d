package video_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"modelgate/inference/video"
	"modelgate/inference/video/videotest"
)

// A bait is what hostile files name: a clip that anybody may read, and an address that anybody may connect to. It notices both.
type bait struct {
	canary, address string
	opened          func() bool
	connections     *atomic.Int64
}

func layBait(t *testing.T) bait {
	t.Helper()
	dir, err := os.MkdirTemp("", "canary-") // a test's own folder lies in one that is closed to ffmpeg's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b := bait{canary: filepath.Join(dir, "canary.mp4")}
	data := clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=1 -c:v libx264 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov+default_base_moof+dash")
	if err := os.WriteFile(b.canary, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, b.canary: 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	b.mustBeOpenToTheBox(t)
	b.opened = watchReads(t, b.canary)
	b.address, b.connections = listen(t)
	return b
}

// mustBeOpenToTheBox sees that it isn't the file's rights that keep ffmpeg from reading it.
func (b bait) mustBeOpenToTheBox(t *testing.T) {
	t.Helper()
	path := script(t, `[ "$1" = -version ] && echo ffmpeg version 0 && exit; : <`+b.canary+` && echo it can be read >&2; exit 1`)
	e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{FFmpeg: path})})
	_, err := e.Encode(t.Context(), video.Clip{Encoded: []byte("GIF89a")})
	if err == nil || !strings.Contains(err.Error(), "it can be read") {
		t.Fatalf("ffmpeg can't open the canary, whatever it is asked to: %v", err)
	}
}

// listen counts the connections to a port.
func listen(t *testing.T) (address string, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = &atomic.Int64{}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		accepting.Wait()
	})
	return l.Addr().String(), connections
}

// touched says what has happened to the bait since it was asked last.
func (b bait) touched() string {
	var what []string
	if b.opened() {
		what = append(what, "opened the canary")
	}
	if b.connections.Swap(0) > 0 {
		what = append(what, "connected")
	}
	return strings.Join(what, ", ")
}

func (b bait) mustBeUntouched(t *testing.T) {
	t.Helper()
	if what := b.touched(); what != "" {
		t.Errorf("ffmpeg %s", what)
	}
}

// unboxed runs ffmpeg where nothing but its arguments keeps it from anything.
func unboxed(t *testing.T, clip []byte, args []string) {
	t.Helper()
	file, err := video.Sealed(clip)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), findFFmpeg(t), append(args, "-f", "null", "-")...)
	cmd.Dir, cmd.ExtraFiles = t.TempDir(), []*os.File{file}
	out, err := cmd.CombinedOutput()
	t.Logf("%v: %s", err, bytes.TrimSpace(out))
}

// without leaves an option and its value out, if it is there.
func without(args []string, option string) []string {
	if at := slices.Index(args, option); at >= 0 {
		return slices.Delete(slices.Clone(args), at, at+2)
	}
	return args
}

// TestArguments sees that ffmpeg's arguments alone keep playlists from opening what they name, and that of those the list of
// protocols does where the format isn't forced. That playlists do open it where neither stands is seen too.
func TestArguments(t *testing.T) {
	b, d := layBait(t), newDecoder(t, video.DecoderOptions{})
	sniffed, opened, connected := 0, 0, 0
	for name, p := range videotest.Playlists(b.canary, b.address) {
		t.Run(name, func(t *testing.T) {
			kind, err := video.Sniff(p.Data)
			if err != nil {
				kind = "mov" // as if it were taken for one
			} else {
				sniffed++
			}
			unboxed(t, p.Data, d.Input(kind))
			b.mustBeUntouched(t)
			if p.Format == "" {
				return
			}
			free := without(d.Input(p.Format), "-format_whitelist")
			unboxed(t, p.Data, free)
			what := b.touched()
			if strings.Contains(what, "connected") || what != "" && name == "hls, encrypted" {
				t.Errorf("a playlist that is read as one %s", what)
			}
			unboxed(t, p.Data, append([]string{"-protocol_whitelist", "file,http,tcp,crypto"}, without(free, "-protocol_whitelist")...))
			what = b.touched()
			if strings.Contains(what, "opened") {
				opened++
			}
			if strings.Contains(what, "connected") {
				connected++
			}
		})
	}
	if sniffed < 4 || opened < 4 || connected < 3 {
		t.Errorf("%d playlists are taken for clips, %d would open the canary and %d connect: too few to show anything", sniffed, opened, connected)
	}
}

// TestSealed sees that nobody changes a clip under the decoder: not who has it open, and not who opens it anew.
func TestSealed(t *testing.T) {
	clip := []byte("a clip")
	file, err := video.Sealed(clip)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	anew, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer anew.Close()
	for name, f := range map[string]*os.File{"as it is": file, "opened anew": anew} {
		t.Run(name, func(t *testing.T) {
			_, writeErr := f.WriteAt([]byte("b"), 0)
			_, growErr := f.WriteAt([]byte("b"), int64(len(clip)))
			_, sealErr := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
			for what, err := range map[string]error{"written to": writeErr, "appended to": growErr, "shortened": f.Truncate(0), "lengthened": f.Truncate(99), "sealed again": sealErr} {
				if err == nil {
					t.Errorf("the clip can be %s", what)
				}
			}
		})
	}
	if got, err := os.ReadFile(anew.Name()); err != nil || !bytes.Equal(got, clip) {
		t.Errorf("the clip is %q, %v", got, err)
	}
}

// TestClipIsSealed sees the same from inside the box.
func TestClipIsSealed(t *testing.T) {
	path := script(t, `[ "$1" = -version ] && echo ffmpeg version 0 && exit; (: >/proc/self/fd/3) 2>/dev/null && echo emptied >&2; read -r line </proc/self/fd/3; echo "it holds $line" >&2; exit 1`)
	e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{FFmpeg: path})})
	_, err := e.Encode(t.Context(), video.Clip{Encoded: []byte("GIF89a\n")})
	mustBe(t, err, video.ErrClip)
	if !strings.Contains(err.Error(), "it holds GIF89a") {
		t.Error(err)
	}
}
