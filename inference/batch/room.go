package batch

import (
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// A FullError is an ErrFull that says when to come back.
type FullError struct {
	Requests int           // that are in the way
	Wait     time.Duration // until they have been run, as far as can be told; 0: that can't be told
}

// Error says how much is in the way.
func (e *FullError) Error() string {
	if e.Wait == 0 {
		return fmt.Sprintf("%v: %d", ErrFull, e.Requests)
	}
	return fmt.Sprintf("%v: %d, which take about %v", ErrFull, e.Requests, e.Wait.Round(time.Millisecond))
}

// Is makes a FullError an ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// A room is where requests wait: those that are still being made (see Enter) and those in the queue. It knows how long runs take, and
// so how long a request will wait. The batcher's lock guards it.
//
// As long as the workers have nothing to do now and then, what waits is a burst, and a whole burst is let in. Where that isn't room
// enough, requests come faster than they can be run: a long queue makes all of them late, and not one more is answered. From then on,
// until a worker has nothing to do for a while, only so much waits as keeps the workers busy. Patient requests are no sign of a flood, however
// many there are, and take no room from others in one.
type room struct {
	workers int
	most    int           // requests inside, since each may hold tensors
	burst   time.Duration // longest wait for one of a burst; 0: see burstLocked

	unsized int          // requests that are being made
	sized   [classes]int // requests in the queue, by class of size
	patient int          // of both
	outside []chan error // patient ones that wait to be let in, oldest first; nil lets one in

	each    [classes]average // how long a request keeps a worker
	any     average          // the same, of whatever size
	flooded bool             // requests come faster than they can be run

	idle      int       // workers that have nothing to do
	idleSince time.Time // when the first of them began
}

// Requests are of one class if their sizes have the same number of bits.
const classes = 64

func class(size int) int { return bits.Len(uint(max(size, 0))) % classes }

// The waits that are let be. Those of the machine's scheduler are no reason to refuse anybody, nor is a burst of some dozens.
const (
	leastBurst = 250 * time.Millisecond
	leastQueue = 10 * time.Millisecond
	burstTimes = 32 // as many times what a request takes
)

// burstLocked is how much work may wait while requests come no faster than they can be run.
func (r *room) burstLocked() time.Duration {
	if r.burst > 0 {
		return r.burst
	}
	return max(leastBurst, burstTimes*r.any.value())
}

// queueLocked is how much work keeps the workers busy: one more run for each. Where runs of several requests take little longer than
// those of one, that many requests make runs large, and so the room for them too.
func (r *room) queueLocked() time.Duration {
	return min(max(leastQueue, r.any.run()), r.burstLocked())
}

// leastOutside is how many may wait outside at least. They hold no tensors, and whole batches of several callers come at once.
const leastOutside = 1024

// mostOutside is how many may wait outside.
func (r *room) mostOutside() int { return max(leastOutside, 4*r.most) }

// waitLocked is how long a request will wait that comes now; 0 as long as no run has shown how long it takes, and where a worker with
// nothing to do is left for it.
func (r *room) waitLocked() time.Duration {
	if r.insideLocked() < r.idle {
		return 0
	}
	work := time.Duration(r.unsized) * r.any.value()
	for c, n := range r.sized {
		if n == 0 {
			continue
		}
		each := r.each[c].value()
		if each == 0 {
			each = r.any.value()
		}
		work += time.Duration(n) * each
	}
	return work / time.Duration(r.workers)
}

// insideLocked is how many wait that were let in.
func (r *room) insideLocked() int {
	n := r.unsized
	for _, m := range r.sized {
		n += m
	}
	return n
}

// admitLocked is nil if one more request may wait, which must be done by deadline; zero: at any time.
func (r *room) admitLocked(now, deadline time.Time) error {
	wait, inside := r.waitLocked(), r.insideLocked()
	others := wait // because of requests that aren't patient
	if inside > 0 {
		others = wait * time.Duration(inside-r.patient) / time.Duration(inside)
	}
	r.calmLocked(now)
	r.flooded = r.flooded || wait > r.burstLocked()
	if inside >= r.most || r.flooded && others > r.queueLocked() || late(now, wait, deadline) {
		return &FullError{inside, wait}
	}
	return nil
}

// late says whether a request that has to wait will run too late. One that hasn't is never late: its caller may know better.
func late(now time.Time, wait time.Duration, deadline time.Time) bool {
	return wait > 0 && !deadline.IsZero() && now.Add(wait).After(deadline)
}

// idleLocked says that a worker begins to have nothing to do, or (-1) ends it.
func (r *room) idleLocked(change int) {
	if change > 0 && r.idle == 0 {
		r.idleSince = time.Now()
	}
	r.calmLocked(time.Now())
	r.idle += change
	r.inviteLocked(0)
}

// calmLocked ends a flood when a worker has had nothing to do for as long as a run takes: what is shorter may be a stall of those who ask.
func (r *room) calmLocked(now time.Time) {
	if r.idle > 0 && now.Sub(r.idleSince) > r.any.run() {
		r.flooded = false
	}
}

// learnLocked notes that a run of n requests of a size took so long.
func (r *room) learnLocked(size, n int, took time.Duration) {
	r.each[class(size)].add(n, took)
	r.any.add(n, took)
}

// enterLocked lets a request in.
func (r *room) enterLocked(patient bool) {
	r.unsized++
	if patient {
		r.patient++
	}
}

// leaveLocked lets one out again of which nothing was made.
func (r *room) leaveLocked(patient bool) {
	r.unsized--
	if patient {
		r.patient--
	}
	r.inviteLocked(0)
}

// madeLocked says that a request was made, and how large it is.
func (r *room) madeLocked(size int) {
	r.unsized--
	r.sized[class(size)]++
}

// takenLocked says that n requests of a size aren't waiting any more, of which so many were patient. For each run of others at least
// one of those outside comes in: so they get their turn, however many others there are.
func (r *room) takenLocked(size, n, patient int) {
	r.sized[class(size)] -= n
	r.patient -= patient
	if patient == 0 {
		r.inviteLocked(1)
	} else {
		r.inviteLocked(0)
	}
}

// queueUpLocked lets a patient request in (nil), has it wait outside, or refuses it.
func (r *room) queueUpLocked(now, deadline time.Time) (chan error, error) {
	wait, outside := r.waitLocked(), len(r.outside)
	room := outside == 0 && r.roomLocked()
	wait += time.Duration(outside) * r.any.value() / time.Duration(r.workers)
	if !room && outside >= r.mostOutside() || late(now, wait, deadline) {
		return nil, &FullError{r.insideLocked() + outside, wait}
	}
	if room {
		r.enterLocked(true)
		return nil, nil
	}
	invited := make(chan error, 1)
	r.outside = append(r.outside, invited)
	return invited, nil
}

// roomLocked says whether a patient request may come in for what waits there.
func (r *room) roomLocked() bool {
	return r.insideLocked() < r.most && r.waitLocked() <= r.queueLocked()
}

// giveUpLocked takes one that waits outside away; false: it was told to come in, or not to.
func (r *room) giveUpLocked(invited chan error) bool {
	i := slices.Index(r.outside, invited)
	if i < 0 {
		return false
	}
	r.outside = slices.Delete(r.outside, i, i+1)
	return true
}

// closeLocked sends those away that wait outside.
func (r *room) closeLocked() {
	for _, invited := range r.outside {
		invited <- ErrClosed
	}
	r.outside = nil
}

// inviteLocked lets those in that wait outside: at least so many, and as many as keep the workers busy, but never more than may be inside.
func (r *room) inviteLocked(least int) {
	for len(r.outside) > 0 && (least > 0 && r.insideLocked() < r.most || r.roomLocked()) {
		r.enterLocked(true)
		r.outside[0] <- nil
		r.outside = slices.Delete(r.outside, 0, 1)
		least--
	}
}

// An average is of about the last eight runs, of which the newest count most.
type average struct {
	took     float64 // nanoseconds of a run
	requests float64 // in a run
	count    float64 // of runs, up to eight
}

func (a *average) add(n int, took time.Duration) {
	a.count = min(a.count+1, 8)
	a.took += (float64(took) - a.took) / a.count
	a.requests += (float64(n) - a.requests) / a.count
}

// run is how long a run takes; 0: there was none.
func (a *average) run() time.Duration { return time.Duration(a.took) }

// value is how long a request keeps a worker: a run's time by its requests, and not the mean of what they are in each run, in which
// those that ran alone would count for too much.
func (a *average) value() time.Duration {
	if a.count == 0 {
		return 0
	}
	return time.Duration(a.took / a.requests)
}
