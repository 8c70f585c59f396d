package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// pin pins what may answer requests for a model now. A fusion falls back if it and the two models that stand in for it are configured.
func (s *Server) pin(ctx context.Context, model string) (*pinned, error) {
	p := &pinned{model: model}
	var err error
	if p.own, err = s.acquire(ctx, model); s.o.Late == nil || model != s.o.Late.Fusion || unknown(err) {
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	p.text.h, p.text.err = s.acquire(ctx, s.o.Late.Text)
	p.video.h, p.video.err = s.acquire(ctx, s.o.Late.Video)
	if !unknown(p.text.err) && !unknown(p.video.err) {
		p.late = s.o.Late
	}
	if p.own == nil && (p.late == nil || p.text.h == nil && p.video.h == nil) {
		p.release()
		return nil, err
	}
	return p, nil
}

// unknown reports whether acquire found that no model of the name is configured.
func unknown(err error) bool { return status.Code(err) == codes.NotFound }

// admit says whether a batch may be begun now, or too much waits already for what will answer it.
func (p *pinned) admit(ctx context.Context) error {
	for _, h := range p.answering() {
		if err := h.Model().Admit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// answering are the versions that answer a request of every part.
func (p *pinned) answering() []*handle {
	if p.own != nil {
		return []*handle{p.own}
	}
	var both []*handle
	for _, h := range []*handle{p.text.h, p.video.h} {
		if h != nil {
			both = append(both, h)
		}
	}
	return both
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
