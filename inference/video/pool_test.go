package video_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"modelgate/inference/video"
)

// waitForCallers returns when n callers wait for work.
func waitForCallers(t *testing.T, d *video.Decoder, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d callers", n), func() bool { return d.Callers() == n })
}

// TestEqualClipsAreDecodedOnce sees that clips of the same bytes are the same, and others and those for other models aren't.
func TestEqualClipsAreDecodedOnce(t *testing.T) {
	var began, shared atomic.Int64
	observe := func(e video.Event) {
		switch e.Kind {
		case video.Began:
			began.Add(1)
		case video.Shared:
			shared.Add(1)
		}
	}
	d := newDecoder(t, video.DecoderOptions{FFmpeg: hanging(t, "98765.4323"), Concurrent: 10, Observe: observe})
	one, two := open(t, videoMAE(), video.Options{Decoder: d}), open(t, videoMAE(), video.Options{Decoder: d, Frames: 8})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var wg sync.WaitGroup
	ask := func(e *video.Encoder, clip string) {
		wg.Go(func() {
			if _, err := e.Encode(ctx, video.Clip{Encoded: []byte(clip)}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range 5 {
		ask(one, "GIF89a")
	}
	ask(one, "GIF89a and more")
	ask(two, "GIF89a")
	waitForCallers(t, d, 7)
	await(t, "three decodes", func() bool { return began.Load() >= 3 })
	leave()
	wg.Wait()
	if began.Load() != 3 || shared.Load() != 4 {
		t.Errorf("%d clips were decoded and %d shared; want 3 and 4", began.Load(), shared.Load())
	}
}

func TestSameClipIsDecodedOnce(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{Concurrent: 4})
	var runs atomic.Int64
	release := make(chan struct{})
	work := func(context.Context) (video.Tensor, error) {
		runs.Add(1)
		<-release
		return video.Tensor{Frames: 7}, nil
	}
	const callers = 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if got, err := d.Do(t.Context(), "clip", work); err != nil || got.Frames != 7 {
				t.Errorf("got %d frames, %v", got.Frames, err)
			}
		})
	}
	waitForCallers(t, d, callers)
	close(release)
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("it was decoded %d times; want once", runs.Load())
	}
	if _, err := d.Do(t.Context(), "clip", work); err != nil || runs.Load() != 2 {
		t.Errorf("later: %v, %d runs: a result isn't kept", err, runs.Load())
	}
}

func TestQueueIsBounded(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{Concurrent: 2, Queue: 3})
	var running, most atomic.Int64
	release := make(chan struct{})
	work := func(context.Context) (video.Tensor, error) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-release
		return video.Tensor{}, nil
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := d.Do(t.Context(), "", work); err != nil {
				t.Error(err)
			}
		})
	}
	waitForCallers(t, d, 5)
	_, err := d.Do(t.Context(), "", work)
	mustBe(t, err, video.ErrBusy)
	close(release)
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d ran at once; want at most 2", most.Load())
	}
}

// TestLastCallerEndsTheWork sees that work goes on while anybody waits for it, and no longer.
func TestLastCallerEndsTheWork(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{Concurrent: 1})
	begun := make(chan context.Context, 1)
	work := func(ctx context.Context) (video.Tensor, error) {
		begun <- ctx
		<-ctx.Done()
		return video.Tensor{}, ctx.Err()
	}
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	defer leaveSecond()
	errs := make(chan error, 2)
	for _, ctx := range []context.Context{first, second} {
		go func() {
			_, err := d.Do(ctx, "clip", work)
			errs <- err
		}()
	}
	waitForCallers(t, d, 2)
	working := <-begun
	leaveFirst()
	mustBe(t, <-errs, context.Canceled)
	if working.Err() != nil {
		t.Fatal("the work ended though somebody waits for it")
	}
	leaveSecond()
	mustBe(t, <-errs, context.Canceled)
	<-working.Done()
}

func TestCloseEndsTheWork(t *testing.T) {
	d, err := video.NewDecoder(video.DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 1)
	go func() {
		_, err := d.Do(t.Context(), "clip", func(ctx context.Context) (video.Tensor, error) {
			<-ctx.Done()
			return video.Tensor{}, ctx.Err()
		})
		errs <- err
	}()
	waitForCallers(t, d, 1)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	mustBe(t, <-errs, video.ErrClosed)
	_, err = d.Do(t.Context(), "clip", nil)
	mustBe(t, err, video.ErrClosed)
}

func TestPanicIsAnError(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	_, err := d.Do(t.Context(), "clip", func(context.Context) (video.Tensor, error) { panic("stumbled") })
	mustBe(t, err, video.ErrClip)
	if _, err := d.Do(t.Context(), "clip", func(context.Context) (video.Tensor, error) { return video.Tensor{}, nil }); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// TestConcurrentEncodes sees that clips decoded side by side, some of them the same, come out as each does alone.
func TestConcurrentEncodes(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{Concurrent: 2, Queue: 16})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	var wg sync.WaitGroup
	for _, name := range []string{"few.mp4", "vp9.webm", "palette.gif"} {
		data, err := os.ReadFile(filepath.Join("testdata", "parity", name))
		if err != nil {
			t.Fatal(err)
		}
		alone, err := e.Encode(t.Context(), video.Clip{Encoded: data})
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			wg.Go(func() {
				if got, err := e.Encode(t.Context(), video.Clip{Encoded: data}); err != nil || !slices.Equal(got.Data, alone.Data) {
					t.Errorf("%s: %v, or other pixels than alone", name, err)
				}
			})
		}
	}
	wg.Wait()
}
