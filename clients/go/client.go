// Package modelgate calls a modelgate server.
//
// A Client spreads its calls over all addresses of its target, leaves out servers that say they aren't healthy, and repeats
// only what is safe to repeat. Every error carries a gRPC status: status.Code(err) and status.FromError(err) find it.
// An error is never a verdict: a prediction that failed has no label, score or decision to misread.
package modelgate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A Client is a set of connections to one or more servers. All methods are safe for concurrent use; one Client a program is enough.
type Client struct {
	target string
	o      Options

	predictions     modelgatev1.PredictionServiceClient
	models          modelgatev1.ModelServiceClient
	predictionsConn *grpc.ClientConn
	// modelsConn has no health check: an operator wants an answer from a server that serves no model yet, too.
	modelsConn *grpc.ClientConn
}

// Dial makes a client for target: "host:port", several of those with commas between them, or any target that gRPC knows, such as
// "dns:///gateways.internal:8001" or "unix:///run/modelgate.sock". All addresses of the target get calls in turn.
//
// Dial doesn't wait for a connection: a server that isn't there shows in the first call. The caller closes the client.
func Dial(target string, o Options) (*Client, error) {
	o = o.withDefaults()
	dialTarget, common, err := o.dialOptions(target)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	c := &Client{target: target, o: o}
	if c.predictionsConn, err = connect(dialTarget, common, predictionConfig(o)); err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	if c.modelsConn, err = connect(dialTarget, common, modelConfig(o)); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", target, err), c.predictionsConn.Close())
	}
	c.predictions = modelgatev1.NewPredictionServiceClient(c.predictionsConn)
	c.models = modelgatev1.NewModelServiceClient(c.modelsConn)
	return c, nil
}

func connect(target string, common []grpc.DialOption, config string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, append([]grpc.DialOption{grpc.WithDefaultServiceConfig(config)}, common...)...)
}

// Close ends the connections and the calls that are in flight.
func (c *Client) Close() error {
	return errors.Join(c.predictionsConn.Close(), c.modelsConn.Close())
}

// Models is the generated client of ModelService, on a connection of its own that needs no healthy model. Calls that only read are
// repeated if the server is unavailable; those that change something never are. Deadlines are the caller's.
func (c *Client) Models() modelgatev1.ModelServiceClient { return c.models }

// withTimeout gives a call without a deadline one.
func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return within(ctx, c.o.Timeout)
}

// within gives ctx a deadline, unless it has one or d is less than 0.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok || d < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
