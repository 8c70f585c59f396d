package server

import (
	"context"

	"modelgate/inference"
	"modelgate/modelstore"
)

type handle = modelstore.Handle[*inference.Model]

// A pinned holds the versions that may answer one request, or the items of one batch, until it is released.
type pinned struct {
	model string
	own   *handle // the model's own version; nil where none serves, which only a fusion that falls back may do without

	late        *Late // nil where only own may answer
	text, video part
}

// A part is a model that answers for the fusion: pinned, or why it isn't.
type part struct {
	h   *handle
	err error
}

// pin pins what may answer requests for a model now.
func (s *Server) pin(ctx context.Context, model string) (*pinned, error) {
	p := &pinned{model: model}
	if s.fallsBack(model) {
		p.late = s.o.Late
		p.text.h, p.text.err = s.acquire(ctx, p.late.Text)
		p.video.h, p.video.err = s.acquire(ctx, p.late.Video)
	}
	var err error
	if p.own, err = s.acquire(ctx, model); err != nil && (p.late == nil || p.text.h == nil && p.video.h == nil) {
		p.release()
		return nil, err
	}
	return p, nil
}

// fallsBack reports whether a model is the fusion and the two models that can stand in for it are there.
func (s *Server) fallsBack(model string) bool {
	if s.o.Late == nil || model != s.o.Late.Fusion {
		return false
	}
	for _, name := range []string{model, s.o.Late.Text, s.o.Late.Video} {
		if _, err := s.updater.Status(name); err != nil {
			return false
		}
	}
	return true
}

func (p *pinned) release() {
	for _, h := range []*handle{p.own, p.text.h, p.video.h} {
		if h != nil {
			h.Release()
		}
	}
}

// version is what metrics call that which was pinned.
func (p *pinned) version() string {
	switch {
	case p == nil:
		return ""
	case p.own == nil:
		return "late_score"
	}
	return p.own.Version().ID()
}
