package main

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a call's error says is read by a person, who wants to know which flag helps.
func TestErrorsNameTheFlagThatHelps(t *testing.T) {
	c := &client{addr: "gate:8001"}
	for name, tc := range map[string]struct {
		code          codes.Code
		message, want string
	}{
		"no server":            {codes.Unavailable, "dial tcp: connect: connection refused", "modelgate serve"},
		"TLS on the other end": {codes.Unavailable, "error reading server preface: EOF", "--tls-ca"},
		"unknown authority":    {codes.Unavailable, "tls: failed to verify certificate: x509: signed by unknown authority", "--tls-ca"},
		"mutual TLS":           {codes.Unavailable, "error reading server preface: remote error: tls: certificate required", "--tls-cert"},
		"no token":             {codes.Unauthenticated, "a bearer token is needed", "--token-file"},
		"slow":                 {codes.DeadlineExceeded, "context deadline exceeded", "--timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.explain(status.Error(tc.code, tc.message)).Error(); !strings.Contains(got, tc.want) {
				t.Errorf("%q doesn't name %s", got, tc.want)
			}
		})
	}
}

// A gateway whose registry is down answers with "connection refused" in its sentence: it is the registry's, not the gateway's.
func TestErrorsOfTheServerAreNotErrorsOfTheConnection(t *testing.T) {
	const message = "reach the registry at http://127.0.0.1:5000: connect: connection refused"
	s, err := status.New(codes.Unavailable, message).WithDetails(&errdetails.ErrorInfo{Reason: "UNAVAILABLE", Domain: "modelgate"})
	if err != nil {
		t.Fatal(err)
	}
	if got := (&client{addr: "gate:8001"}).explain(s.Err()).Error(); got != message {
		t.Errorf("got %q, want %q", got, message)
	}
}
