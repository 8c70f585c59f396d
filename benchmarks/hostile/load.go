package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/benchmarks/minilm"
	pb "modelgate/proto/modelgate/v1"
)

// Limits of what may be asked for, so that no slip of the hand turns this into a flood.
const (
	mostRate     = 2000
	mostInFlight = 500
	deadline     = 20 * time.Second
)

func (g *gateway) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	sentence := minilm.Sentence()
	_, err := g.client.Predict(ctx, &pb.PredictRequest{Model: "text", Text: &sentence})
	return err
}

// capacity is how many texts a second the gateway answers when so many callers as there are cores ask all the time.
func (g *gateway) capacity(ctx context.Context, callers int, length time.Duration) (float64, error) {
	var running sync.WaitGroup
	var answered atomic.Int64
	failed := make(chan error, callers)
	start := time.Now()
	for range callers {
		running.Go(func() {
			for time.Since(start) < length {
				if err := g.ask(ctx); err != nil {
					failed <- err
					return
				}
				answered.Add(1)
			}
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return float64(answered.Load()) / time.Since(start).Seconds(), nil
	}
}

// texts sends texts at a steady rate for so long and gives their latencies. It is an open loop: a request starts at its time
// whether or not earlier ones have been answered, and its latency counts from that time.
func (g *gateway) texts(ctx context.Context, rate float64, length time.Duration) (*hdr.Histogram, error) {
	latencies := newHistogram()
	var mu sync.Mutex // guards latencies and failed
	var failed error
	var running sync.WaitGroup
	turns := make(chan struct{}, mostInFlight)
	start := time.Now()
	interval := time.Duration(float64(time.Second) / min(rate, mostRate))
	for due := start; due.Before(start.Add(length)); due = due.Add(interval) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		select {
		case turns <- struct{}{}:
		default:
			return nil, fmt.Errorf("%d texts are unanswered: the rate is too high for this machine", mostInFlight)
		}
		running.Go(func() {
			err := g.ask(ctx)
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err, latencies.RecordValue(min(max(took.Microseconds(), 1), time.Minute.Microseconds())))
			<-turns
		})
	}
	running.Wait()
	return latencies, errors.Join(failed, ctx.Err())
}

func newHistogram() *hdr.Histogram { return hdr.New(1, time.Minute.Microseconds(), 3) }

// A clip is one to send, and whether it is to be answered or refused.
type clip struct {
	name string
	data []byte
	good bool
}

// clips has some callers send the clips one after the other, over and over, until stop is called, which says how many were
// answered as they should be.
func (g *gateway) clips(ctx context.Context, all []clip, callers int) (stop func() (int64, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	var next, answered atomic.Int64
	failed := make(chan error, callers)
	for range callers {
		running.Go(func() {
			for ctx.Err() == nil {
				c := all[int(next.Add(1)-1)%len(all)]
				if err := g.send(ctx, c); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
				answered.Add(1)
			}
		})
	}
	return func() (int64, error) {
		cancel()
		running.Wait()
		select {
		case err := <-failed:
			return answered.Load(), err
		default:
			return answered.Load(), nil
		}
	}
}

// send's answer may be ResourceExhausted on a machine whose processors others have: then no clip is to blame.
func (g *gateway) send(ctx context.Context, c clip) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := g.client.Predict(ctx, &pb.PredictRequest{Model: "video", Video: &pb.Video{Source: &pb.Video_Clip{Clip: c.data}}})
	switch code := status.Code(err); {
	case c.good && err != nil && code != codes.ResourceExhausted:
		return fmt.Errorf("%s was not answered: %w", c.name, err)
	case !c.good && code != codes.InvalidArgument && code != codes.ResourceExhausted:
		return fmt.Errorf("%s was not refused, the answer was %v: %w", c.name, code, err)
	}
	return nil
}
