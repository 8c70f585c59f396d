package batch

import (
	"context"
	"time"
)

// A Place is room for one request.
type Place[In, Out any] struct {
	b       *Batcher[In, Out]
	patient bool
	used    bool // by Do or Leave
}

// Enter takes a place for a request that is still to be made, so that one that is refused costs nothing. It fails as Do does. A
// patient one is refused only where its deadline can't be met or very many wait outside already, as it does, without a place, for as
// long as there is much to do or MaxQueue places are held. So what one caller sends at once, as a batch, isn't refused because of itself, and leaves room for others.
// The caller must call Leave.
func (b *Batcher[In, Out]) Enter(ctx context.Context, patient bool) (*Place[In, Out], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	invited, err := b.enter(ctx, patient)
	if err != nil {
		return nil, err
	}
	if invited != nil {
		if err := b.await(ctx, invited); err != nil {
			return nil, err
		}
	}
	return &Place[In, Out]{b: b, patient: patient}, nil
}

// Admit says whether Enter would let in one that isn't patient.
func (b *Batcher[In, Out]) Admit(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	deadline, _ := ctx.Deadline()
	return b.room.admitLocked(time.Now(), deadline)
}

// enter counts one more request, or gives what tells a patient one to come in.
func (b *Batcher[In, Out]) enter(ctx context.Context, patient bool) (invited chan error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	deadline, _ := ctx.Deadline()
	if !patient {
		if err := b.room.admitLocked(time.Now(), deadline); err != nil {
			return nil, err
		}
		b.room.enterLocked(false)
		return nil, nil
	}
	return b.room.queueUpLocked(time.Now(), deadline)
}

// await waits to be let in.
func (b *Batcher[In, Out]) await(ctx context.Context, invited chan error) error {
	select {
	case err := <-invited:
		return err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.room.giveUpLocked(invited) && <-invited == nil {
		b.room.leaveLocked(true)
	}
	return ctx.Err()
}

// Leave gives the place up, unless Do was called.
func (p *Place[In, Out]) Leave() {
	if p.used {
		return
	}
	p.used = true
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.room.leaveLocked(p.patient)
}

// Do runs in as Batcher.Do does. It is called once at most.
func (p *Place[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	var none Out
	if err := ctx.Err(); err != nil {
		return none, err
	}
	b := p.b
	r := &request[In, Out]{ctx: ctx, in: in, patient: p.patient, came: time.Now(), done: make(chan answer[Out], 1)}
	if b.o.Size != nil {
		r.size = b.o.Size(in)
	}
	if err := b.add(r); err != nil {
		return none, err
	}
	p.used = true
	select {
	case a := <-r.done:
		return a.out, a.err
	case <-ctx.Done():
		b.forget(r)
		return none, ctx.Err()
	}
}
