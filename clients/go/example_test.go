package modelgate_test

import (
	"context"
	"fmt"
	"log"

	modelgate "modelgate/clients/go"
)

func ExampleDial() {
	addr, stop, err := startGateway() // or the address of your own, such as "127.0.0.1:8001"
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = stop() }()

	client, err := modelgate.Dial(addr, modelgate.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	p, err := client.Predict(context.Background(), "text", "what an awful, horrible day, I hate it")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %v, by version %s of %s\n", p.Label, p.Decision, p.Version, p.Model)
	// Output: negative, at or above threshold, by version 2 of text
}

func ExampleClient_PredictStream() {
	addr, stop, err := startGateway()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = stop() }()
	client, err := modelgate.Dial(addr, modelgate.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	requests := make(chan modelgate.Request, 3)
	requests <- modelgate.Request{ID: "a", Text: "what an awful, horrible day, I hate it"}
	requests <- modelgate.Request{ID: "b", Text: "thank you, what a lovely morning"}
	requests <- modelgate.Request{ID: "c", Text: ""}
	close(requests)
	for r, err := range client.PredictStream(context.Background(), "text", requests) {
		if err != nil {
			log.Fatal(err) // the stream broke off
		}
		if r.Err != nil {
			fmt.Println(r.ID, "has no answer")
			continue
		}
		fmt.Println(r.ID, r.Prediction.Decision)
	}
	// Unordered output:
	// a at or above threshold
	// b below threshold
	// c has no answer
}
