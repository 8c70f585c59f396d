package modelstore

import (
	"context"
	"fmt"
	"slices"
)

// An order is something that the operator, or a supervisor, wants done to a model.
type order struct {
	do     func(ctx context.Context) error
	urgent bool       // it interrupts a pass; one that isn't is interrupted, and done after those that are
	done   chan error // buffered: the operator may have left
	left   bool       // guarded by Updater.mu: the operator has left
}

func (u *Updater) nextOrder(m *model) *order {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(m.orders) == 0 {
		return nil
	}
	o := m.orders[0]
	m.orders = m.orders[1:]
	return o
}

// order has do run on the model's goroutine and returns its error, or ctx's if that ends first: do then goes on if it has begun, and
// is not begun if it hasn't.
func (u *Updater) order(ctx context.Context, name string, urgent bool, do func(ctx context.Context, m *model) error) error {
	u.mu.Lock()
	m := u.models[name]
	if m == nil {
		u.mu.Unlock()
		return fmt.Errorf("%w: %q", ErrUnknownModel, name)
	}
	if u.ended {
		u.mu.Unlock()
		return ErrClosed
	}
	o := u.enqueueLocked(m, urgent, do)
	u.mu.Unlock()
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		u.mu.Lock()
		defer u.mu.Unlock()
		o.left = true
		m.orders = slices.DeleteFunc(m.orders, func(p *order) bool { return p == o })
		return ctx.Err()
	}
}

// enqueueLocked has do run on the model's goroutine, which it wakes.
func (u *Updater) enqueueLocked(m *model, urgent bool, do func(ctx context.Context, m *model) error) *order {
	o := &order{do: func(ctx context.Context) error { return do(ctx, m) }, urgent: urgent, done: make(chan error, 1)}
	m.orders = append(m.orders, o)
	if urgent && m.interrupt != nil {
		m.interrupt()
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return o
}

// carryOut does what an order says. One that isn't urgent makes way for those that are, and is then done from the beginning.
func (u *Updater) carryOut(ctx context.Context, m *model, o *order) {
	if o.urgent {
		o.done <- o.do(ctx)
		return
	}
	passing, cancel := context.WithCancel(ctx)
	defer cancel()
	again := func() bool {
		if o.left || !slices.ContainsFunc(m.orders, func(o *order) bool { return o.urgent }) {
			return false
		}
		m.orders = append(m.orders, o)
		return true
	}
	u.mu.Lock()
	if again() {
		u.mu.Unlock()
		return
	}
	m.interrupt = cancel
	u.mu.Unlock()

	err := o.do(passing)

	u.mu.Lock()
	m.interrupt = nil
	interrupted := err != nil && passing.Err() != nil && again()
	u.mu.Unlock()
	if !interrupted {
		o.done <- err
	}
}

// refuseOrders answers the orders that came too late.
func (u *Updater) refuseOrders() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.models {
		for _, o := range m.orders {
			o.done <- ErrClosed
		}
		m.orders = nil
	}
}
