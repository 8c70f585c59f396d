package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// ask sends one text.
func (g *gateway) ask(ctx context.Context, text string) (*pb.PredictResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return g.client.Predict(ctx, &pb.PredictRequest{Model: "text", Text: &text})
}

// capacity is how many texts a second are answered to so many callers, each of whom asks again as soon as it has its answer.
func (g *gateway) capacity(ctx context.Context, text string, callers int, length time.Duration) (float64, error) {
	var running sync.WaitGroup
	var answered atomic.Int64
	failed := make(chan error, callers)
	start := time.Now()
	for range callers {
		running.Go(func() {
			for time.Since(start) < length {
				if _, err := g.ask(ctx, text); err != nil {
					failed <- err
					return
				}
				answered.Add(1)
			}
		})
	}
	running.Wait()
	took := time.Since(start)
	close(failed)
	return float64(answered.Load()) / took.Seconds(), <-failed
}

// offered is what came of texts that were sent at a rate.
type offered struct {
	sent      int
	length    time.Duration
	latencies []time.Duration // of those answered, from the moment at which they were due
	refused   int             // with RESOURCE_EXHAUSTED and a time to come back
	failed    []error         // otherwise
}

// goodput is how many were answered a second.
func (o offered) goodput() float64 { return float64(len(o.latencies)) / o.length.Seconds() }

func (o offered) p99() time.Duration { return p99(o.latencies) }

func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)*99/100]
}

// offer sends a text at a rate, at random moments, until stop is closed or the time is over. It is an open loop: a request
// starts at its time whether or not earlier ones have been answered, and its latency counts from that time.
func (g *gateway) offer(ctx context.Context, text string, rate float64, length time.Duration, stop <-chan struct{}) offered {
	var o offered
	var mu sync.Mutex // guards o
	var running sync.WaitGroup
	start := time.Now()
	r := rand.New(rand.NewPCG(uint64(start.UnixNano()), 1))
	for due := start; ; {
		due = due.Add(time.Duration(r.ExpFloat64() / rate * float64(time.Second)))
		if due.After(start.Add(length)) {
			break
		}
		select {
		case <-time.After(time.Until(due)):
		case <-stop:
		case <-ctx.Done():
		}
		if closed(stop) || ctx.Err() != nil {
			break
		}
		o.sent++
		running.Go(func() {
			_, err := g.ask(ctx, text)
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				o.latencies = append(o.latencies, took)
			case isRefusal(err):
				o.refused++
			default:
				o.failed = append(o.failed, err)
			}
		})
	}
	o.length = time.Since(start)
	running.Wait()
	return o
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// isRefusal says whether err is RESOURCE_EXHAUSTED with a time to come back.
func isRefusal(err error) bool {
	st := status.Convert(err)
	if st.Code() != codes.ResourceExhausted {
		return false
	}
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() > 0 {
			return true
		}
	}
	return false
}
