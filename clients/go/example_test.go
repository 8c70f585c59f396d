package modelgate_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"

	modelgate "modelgate/clients/go"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// scorer stands for a gateway whose model finds the word "awful" negative.
type scorer struct {
	modelgatev1.UnimplementedPredictionServiceServer
}

func (scorer) Predict(_ context.Context, r *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
	return score(r), nil
}

func (scorer) PredictStream(s peerStream) error {
	return each(s, func(r *modelgatev1.PredictRequest) error {
		return s.Send(&modelgatev1.PredictStreamResponse{Id: r.GetId(), Result: &modelgatev1.PredictStreamResponse_Prediction{Prediction: score(r)}})
	})
}

func score(r *modelgatev1.PredictRequest) *modelgatev1.PredictResponse {
	p := &modelgatev1.PredictResponse{Label: "other", Score: 0.03, Decision: modelgatev1.Decision_DECISION_BELOW_THRESHOLD, Version: "3", Id: r.GetId()}
	if r.GetText() == "what an awful day" {
		p.Label, p.Score, p.Decision = "negative", 0.97, modelgatev1.Decision_DECISION_AT_OR_ABOVE_THRESHOLD
	}
	return p
}

// serve starts a scorer; "127.0.0.1:8001" is where a gateway of your own is.
func serve() (addr string, stop func()) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	g := grpc.NewServer()
	modelgatev1.RegisterPredictionServiceServer(g, scorer{})
	go func() { _ = g.Serve(l) }()
	return l.Addr().String(), g.Stop
}

func ExampleDial() {
	addr, stop := serve()
	defer stop()

	client, err := modelgate.Dial(addr, modelgate.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	p, err := client.Predict(context.Background(), "text", "what an awful day")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %.2f, %v, by version %s\n", p.Label, p.Score, p.Decision, p.Version)
	// Output: negative 0.97, at or above threshold, by version 3
}

func ExampleClient_PredictStream() {
	addr, stop := serve()
	defer stop()
	client, err := modelgate.Dial(addr, modelgate.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	requests := make(chan modelgate.Request, 2)
	requests <- modelgate.Request{ID: "a", Text: "what an awful day"}
	requests <- modelgate.Request{ID: "b", Text: "a fine day"}
	close(requests)
	for r, err := range client.PredictStream(context.Background(), "text", requests) {
		if err != nil {
			log.Fatal(err) // the stream broke off
		}
		if r.Err != nil {
			fmt.Println(r.ID, "has no answer:", r.Err)
			continue
		}
		fmt.Println(r.ID, r.Prediction.Label)
	}
	// Unordered output:
	// a negative
	// b other
}
