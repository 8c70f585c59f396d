// Command load sends predictions to a gateway on this machine at a steady rate and writes one JSON line an answer.
//
// It is an open loop: a request starts at its time whether or not earlier ones have been answered, and its latency counts from
// that time, so that a stall shows. It ends when its standard input is closed, or after -for.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// Limits of what may be asked for, so that no slip of the hand turns this into a flood.
const (
	mostRate     = 5000
	longest      = 10 * time.Minute
	mostInFlight = 2000
	deadline     = 10 * time.Second
)

type options struct {
	addr, model, texts string
	rate               int
	length             time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8001", "gRPC address of the gateway, on this machine")
	flag.StringVar(&o.model, "model", "text", "served name")
	flag.StringVar(&o.texts, "texts", "", "file with one text a line")
	flag.IntVar(&o.rate, "rate", 200, "requests a second")
	flag.DurationVar(&o.length, "for", time.Minute, "how long, unless standard input is closed before")
	flag.Parse()
	if err := run(o, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func (o options) check() error {
	host, _, err := net.SplitHostPort(o.addr)
	if err != nil {
		return fmt.Errorf("-addr %q: %w", o.addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("-addr %q: only a gateway on this machine (127.0.0.1) may be loaded", o.addr)
	}
	if o.rate < 1 || o.rate > mostRate {
		return fmt.Errorf("-rate %d: want 1 to %d", o.rate, mostRate)
	}
	if o.length <= 0 || o.length > longest {
		return fmt.Errorf("-for %v: want up to %v", o.length, longest)
	}
	return nil
}

func run(o options, in io.Reader, out io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	texts, err := readTexts(o.texts)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(o.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", o.addr, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), o.length)
	defer cancel()
	go func() { // ends with its pipe, at the latest when the program does
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	l := &load{client: modelgatev1.NewPredictionServiceClient(conn), model: o.model, texts: texts, answers: make(chan answer, mostInFlight)}
	go l.send(ctx, time.Second/time.Duration(o.rate))
	return write(out, l.answers)
}

func readTexts(path string) ([]string, error) {
	if path == "" {
		return []string{"what a lovely day", "my flight was cancelled and nobody answers the phone"}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the texts: %w", err)
	}
	var texts []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			texts = append(texts, line)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("%s holds no text", path)
	}
	return texts, nil
}

// answer is one line of output.
type answer struct {
	Sent    int64  `json:"sent_us"`    // when it was due, in microseconds since 1970
	Latency int64  `json:"latency_us"` // from then to the answer
	Version string `json:"version,omitempty"`
	Label   string `json:"label,omitempty"`
	Error   string `json:"error,omitempty"`
}

type load struct {
	client  modelgatev1.PredictionServiceClient
	model   string
	texts   []string
	answers chan answer
}

// send starts a request every interval until ctx ends, waits for the answers and closes the channel.
func (l *load) send(ctx context.Context, interval time.Duration) {
	defer close(l.answers)
	var running sync.WaitGroup
	defer running.Wait()
	turns := make(chan struct{}, mostInFlight)
	start := time.Now()
	for n := 0; ; n++ {
		due := start.Add(time.Duration(n) * interval)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		select {
		case turns <- struct{}{}:
		default: // a request that can't even start is a failed one
			l.answers <- answer{Sent: due.UnixMicro(), Error: fmt.Sprintf("%d requests are unanswered", mostInFlight)}
			continue
		}
		running.Go(func() { //nolint:contextcheck // what was sent gets its answer
			l.answers <- l.ask(due, l.texts[n%len(l.texts)])
			<-turns
		})
	}
}

// ask is no part of the sender's context: what was sent gets its answer.
func (l *load) ask(due time.Time, text string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r, err := l.client.Predict(ctx, &modelgatev1.PredictRequest{Model: l.model, Text: &text})
	a := answer{Sent: due.UnixMicro(), Latency: time.Since(due).Microseconds(), Version: r.GetVersion(), Label: r.GetLabel()}
	if err != nil {
		a.Error = fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
	}
	return a
}

// write writes answers as they come, at most a tenth of a second late.
func write(out io.Writer, answers <-chan answer) error {
	buffered := bufio.NewWriter(out)
	encoder := json.NewEncoder(buffered)
	flush := time.NewTicker(100 * time.Millisecond)
	defer flush.Stop()
	var errs error
	for {
		select {
		case a, more := <-answers:
			if !more {
				return errors.Join(errs, buffered.Flush())
			}
			errs = errors.Join(errs, encoder.Encode(a))
		case <-flush.C:
			errs = errors.Join(errs, buffered.Flush())
		}
	}
}
