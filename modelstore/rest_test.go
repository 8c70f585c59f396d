package modelstore_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"modelgate/modelstore"
)

// What copies and hashes takes turns with what serves. Where nothing serves, or an operator waits, it doesn't.
func TestRest(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		var waited []time.Duration
		r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error {
			began := time.Now()
			modelstore.Rest(ctx, 4*time.Millisecond)
			modelstore.Rest(ctx, time.Second) // a disk, not the processor
			waited = append(waited, time.Since(began))
			return nil
		}
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		r.publish(2, 0.90)
		g.refresh()
		r.publish(3, 0.50)
		g.must(g.u.Promote(t.Context(), "text", 3))
		g.wantServing("3/2")
		if want := []time.Duration{0, 28 * time.Millisecond, 0}; !slices.Equal(waited, want) {
			t.Errorf("rested %v, want %v: for the first version, one beside another, one that was promoted", waited, want)
		}
	})
}
