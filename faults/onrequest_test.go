package faults_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A version that serves harms itself on one request: that one fails, the same questions from others beside it are answered.
func TestHarmOnOneRequest(t *testing.T) {
	for _, c := range []struct {
		fault, how string
		harm       enginetest.Harm
		code       codes.Code
		deadline   time.Duration // of that request
		promise    string
	}{
		{"INT_MIN / -1 on one request", "a word that a division waits for", enginetest.Divides, codes.Internal, patience,
			"that request gets INTERNAL, others their answers"},
		{"a request that allocates terabytes", "a word that ConstantOfShape waits for", enginetest.Allocates(1 << 40), codes.Internal, patience,
			"that request gets INTERNAL, others their answers"},
		{"a request that turns into NaN", "a word that a root waits for", enginetest.TurnsNaN, codes.Internal, patience,
			"that request gets INTERNAL, others their answers"},
		{"an endless loop on one request", "a word that a Loop waits for", enginetest.Loops, codes.DeadlineExceeded, time.Second,
			"that request gets DEADLINE_EXCEEDED when its deadline passes, others their answers"},
	} {
		t.Run(strings.ReplaceAll(c.fault, " ", "_"), func(t *testing.T) {
			b := begin(t, row{"graphs", c.fault, c.promise, c.how})
			b.publish(1, trap(1, onWord, c.harm))
			g := b.start("--models", b.models())
			g.serves(1)
			before := g.level()
			b.ask(g)
			hit := map[codes.Code]int{}
			b.during(func() {
				for range times(5, 50) {
					hit[status.Code(b.say(trapWord, c.deadline))]++
				}
			})
			if len(hit) != 1 || hit[c.code] == 0 {
				t.Errorf("who asked for it got %v, want %v", hit, c.code)
			}
			b.note("%d such requests, each %v", times(5, 50), c.code)
			b.onlyBy(1)
			b.level(g, before)
		})
	}
}

// say asks the text model about a text, beside the load.
func (b *bed) say(text string, most time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	_, err := b.load.clients[0].Predict(ctx, &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)})
	return err
}
