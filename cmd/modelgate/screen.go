package main

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
)

// screen is standard error: lines, and below them at most one progress bar while a version is downloaded to a terminal.
type screen struct {
	w        io.Writer
	terminal bool

	mu  sync.Mutex // guards bar and writing; held while a line is written, which a terminal may slow down
	bar *progressbar.ProgressBar
}

// Write writes whole lines, over the bar, which is drawn anew with the next bytes.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		printf(s.w, "\r\x1b[K")
	}
	return s.w.Write(b)
}

// start shows a bar, unless another is shown or nobody sees it. The bar is nil then.
func (s *screen) start(what string) *progressbar.ProgressBar {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal || s.bar != nil {
		return nil
	}
	s.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(s.w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return s.bar
}

func (s *screen) move(bar *progressbar.ProgressBar, done, total int64) {
	if bar == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if total > 0 && bar.GetMax64() != total {
		bar.ChangeMax64(total)
	}
	_ = bar.Set64(done)
}

func (s *screen) end(bar *progressbar.ProgressBar) {
	if bar == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = bar.Clear()
	s.bar = nil
}

// shownSource shows how downloads advance.
type shownSource struct {
	*mlflow.Source
	screen *screen
}

var _ modelstore.Promoter = shownSource{}

func (s shownSource) Fetch(ctx context.Context, v modelstore.Version, dir string, progress func(done, total int64)) error {
	bar := s.screen.start(v.String())
	defer s.screen.end(bar)
	return s.Source.Fetch(ctx, v, dir, func(done, total int64) {
		s.screen.move(bar, done, total)
		if progress != nil {
			progress(done, total)
		}
	})
}
