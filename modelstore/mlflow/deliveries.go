package mlflow

import (
	"fmt"
	"math"
	"sync"
)

// mostDeliveries bounds how many ids are remembered: about 27 a second over the whole window, two megabytes.
const mostDeliveries = 16 << 10

// deliveries remembers the ids of what was accepted. When there are too many, the oldest second is forgotten, and from then on nothing of
// that second or before is accepted: a flood makes the window smaller, but never lets something in twice.
type deliveries struct {
	mu    sync.Mutex                    // guards what follows
	ids   map[int64]map[string]struct{} // by the second that the delivery says it is of
	count int
	floor int64 // nothing of this second or before is accepted
}

func newDeliveries() *deliveries {
	return &deliveries{ids: make(map[int64]map[string]struct{}), floor: math.MinInt64}
}

// add notes an id, or says why it is refused. Ids come with a signature, so only MLflow can fill the memory.
func (d *deliveries) add(id string, at, now int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for second := range d.ids {
		if second < now-deliveryWindow {
			d.forgetLocked(second)
		}
	}
	if at <= d.floor {
		return &DeliveryError{"window", fmt.Sprintf("the delivery is older than what can be remembered: there were more than %d within the window", mostDeliveries)}
	}
	if _, ok := d.ids[at][id]; ok {
		return &DeliveryError{"replay", fmt.Sprintf("the delivery %s was here before", id)}
	}
	if d.ids[at] == nil {
		d.ids[at] = make(map[string]struct{})
	}
	d.ids[at][id] = struct{}{}
	d.count++
	for d.count > mostDeliveries {
		oldest := int64(math.MaxInt64)
		for second := range d.ids {
			oldest = min(oldest, second)
		}
		d.floor = oldest
		d.forgetLocked(oldest)
	}
	return nil
}

func (d *deliveries) forgetLocked(second int64) {
	d.count -= len(d.ids[second])
	delete(d.ids, second)
}
