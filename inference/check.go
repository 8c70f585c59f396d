package inference

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modelgate/inference/engine"
	"modelgate/inference/text"
)

// Checked says what Examine found.
type Checked struct {
	Contract bool    // the publisher made promises, and they hold
	Examples int     // golden answers that came out again; 0: the bundle holds none
	Largest  float64 // difference of any score from a golden answer
}

// Check is Examine for who is about to serve the model: after it, the model computes at the usual priority.
func (m *Model) Check(ctx context.Context) error {
	if _, err := m.Examine(ctx); err != nil {
		return err
	}
	m.killers.live.Store(true)
	if c, ok := m.session.(engine.Candidate); ok {
		return c.Live(ctx)
	}
	return nil
}

// Examine says whether the model is what was published: whether it keeps its contract, and whether the golden answers of its bundle
// come out on this machine. It is called after WarmUp. Its errors wrap ErrBundle where the model is at fault.
//
// What the gateway is configured to do with texts, labels and thresholds is left out: the publisher couldn't know.
func (m *Model) Examine(ctx context.Context) (Checked, error) {
	most := m.options.MaxCheck
	if most <= 0 {
		most = DefaultMaxCheck
	}
	bounded, cancel := context.WithTimeoutCause(ctx, most, errSlowCheck)
	defer cancel()
	c, err := m.examine(bounded)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() == nil && errors.Is(context.Cause(bounded), errSlowCheck):
		return Checked{}, fmt.Errorf("%w: %w, %v: publish fewer golden examples, or smaller ones", ErrBundle, errSlowCheck, most)
	}
	return Checked{}, bundleError(ctx, err)
}

// DefaultMaxCheck is how long the check before a swap may take: it has the model's turn, and a decoder's.
const DefaultMaxCheck = 10 * time.Minute

var errSlowCheck = errors.New("the check takes longer than is allowed")

func (m *Model) examine(ctx context.Context) (c Checked, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it panicked: %v", ErrBundle, p)
		}
	}()
	g, done, err := m.asPublished()
	if err != nil {
		return c, fmt.Errorf("open it with the bundle's own settings: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if c.Contract, err = m.keepsContracts(g.info()); err != nil {
		return c, err
	}
	c.Examples, c.Largest, err = m.compareGolden(ctx, g)
	return c, err
}

// asPublished is the graph as the bundle alone has it. done ends its use.
func (m *Model) asPublished() (g graph, done func() error, err error) {
	o := m.options
	o.MaxLength, o.SpecialAsText, o.MaxTextBytes = 0, false, max(o.MaxTextBytes, text.DefaultMaxBytes)
	if m.options.MaxLength == 0 && !m.options.SpecialAsText && (m.options.MaxTextBytes == 0 || m.options.MaxTextBytes == o.MaxTextBytes) {
		return m.graph, func() error { return nil }, nil
	}
	if g, err = newGraph(m.bundle, m.session, o); err != nil {
		return nil, nil, err
	}
	return g, g.Close, nil
}
