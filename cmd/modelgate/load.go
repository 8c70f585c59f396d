package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A sample is one request of a load: when it should have started, how long its answer took from then, and who gave it.
type sample struct {
	start   time.Time
	took    time.Duration
	version string
	err     error
}

// load sends requests at a steady rate until ctx ends, whether answers come or not, and returns when every answer is there.
// Latency counts from the intended start, so that a stall shows in every request that it holds up.
func load(ctx context.Context, c modelgatev1.PredictionServiceClient, texts []string, rate int) []sample {
	var mu sync.Mutex // guards samples
	var samples []sample
	var wg sync.WaitGroup
	interval := time.Second / time.Duration(rate)
	next := time.NewTimer(0)
	defer next.Stop()
	due := time.Now()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			wg.Wait()
			return samples
		case <-next.C:
		}
		start, text := due, texts[n%len(texts)]
		wg.Go(func() {
			s := ask(context.WithoutCancel(ctx), c, text, start)
			mu.Lock()
			samples = append(samples, s)
			mu.Unlock()
		})
		due = due.Add(interval)
		next.Reset(time.Until(due))
	}
}

func ask(ctx context.Context, c modelgatev1.PredictionServiceClient, text string, start time.Time) sample {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := c.Predict(ctx, &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)})
	return sample{start: start, took: time.Since(start), version: r.GetVersion(), err: err}
}

// summary is what a table shows of some samples.
type summary struct {
	sent, failed int
	p50, p99     time.Duration
	firstError   error
}

func summarize(samples []sample, keep func(sample) bool) summary {
	var s summary
	var took []time.Duration
	for _, x := range samples {
		if !keep(x) {
			continue
		}
		s.sent++
		took = append(took, x.took)
		if x.err != nil {
			s.failed++
			if s.firstError == nil {
				s.firstError = x.err
			}
		}
	}
	if len(took) == 0 {
		return s
	}
	slices.Sort(took)
	s.p50, s.p99 = took[len(took)/2], took[len(took)*99/100]
	return s
}
