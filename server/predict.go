package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// predictions is PredictionService.
type predictions struct {
	pb.UnimplementedPredictionServiceServer
	*Server
	// fromREST says that only our own REST calls: an upload may send its header again after its chunks, since a form's fields may
	// come after its file.
	fromREST bool
}

// Predict scores one input.
func (p predictions) Predict(ctx context.Context, req *pb.PredictRequest) (*pb.PredictResponse, error) {
	began := time.Now()
	with, err := p.pin(ctx, req.GetModel())
	if err != nil {
		p.count(req.GetModel(), nil, began, err)
		return nil, err
	}
	defer with.release()
	return p.answer(ctx, with, req, began, false)
}

// answer is the straight line of every prediction: check, predict, convert, count. The caller releases with. A patient one is of a
// caller who has others in progress: it waits for room where another would be refused.
func (s *Server) answer(ctx context.Context, with *pinned, req *pb.PredictRequest, began time.Time, patient bool) (resp *pb.PredictResponse, err error) {
	defer s.o.Metrics.inFlight(with.model)()
	defer func() {
		if r := recover(); r != nil {
			err = s.fail(ctx, panicked(r), ofPrediction())
		}
		if err != nil {
			resp = nil
		}
		s.count(with.model, with, began, err)
	}()
	if err := s.check(req); err != nil {
		return nil, err
	}
	in := input(req)
	in.Patient = patient
	release, err := s.dereference(ctx, with, req, &in)
	defer release()
	if err != nil {
		return nil, s.fail(ctx, err, ofPrediction())
	}
	if resp, err = s.judge(ctx, with, req, in); err != nil {
		return nil, s.fail(ctx, err, ofPrediction())
	}
	return resp, nil
}

// count measures one prediction. Names of models that don't exist don't become series.
func (s *Server) count(model string, with *pinned, began time.Time, err error) {
	if with == nil {
		if _, serr := s.updater.Status(model); serr != nil {
			model = ""
		}
	}
	s.o.Metrics.request(model, with.version(), status.Code(err), time.Since(began))
}

// PredictBatch scores a micro-batch with one version: the one that serves when the batch arrives.
func (p predictions) PredictBatch(ctx context.Context, req *pb.PredictBatchRequest) (*pb.PredictBatchResponse, error) {
	if err := p.known(ctx, req.GetModel()); err != nil {
		return nil, err
	}
	n, most := len(req.GetRequests()), p.o.Limits.BatchItems
	switch {
	case n == 0:
		return nil, invalid("EMPTY_BATCH", "requests is empty: a batch has at least one")
	case n > most:
		return nil, invalid("BATCH_TOO_LARGE", fmt.Sprintf("the batch has %d requests, more than %d: split it", n, most))
	}
	began := time.Now()
	with, err := p.pin(ctx, req.GetModel())
	if err != nil {
		p.count(req.GetModel(), nil, began, err)
		return nil, err
	}
	defer with.release()
	if err := with.admit(ctx); err != nil {
		err = p.fail(ctx, err, ofPrediction())
		p.count(req.GetModel(), with, began, err)
		return nil, err
	}
	items := p.answerAll(ctx, with, req)
	if ctx.Err() != nil {
		return nil, p.fail(ctx, ctx.Err(), ofPrediction())
	}
	return &pb.PredictBatchResponse{Responses: items}, nil
}

// answerAll answers the items of a batch that was admitted, a bounded number of them at a time.
func (p predictions) answerAll(ctx context.Context, with *pinned, req *pb.PredictBatchRequest) []*pb.PredictBatchItem {
	items := make([]*pb.PredictBatchItem, len(req.GetRequests()))
	places := make(chan struct{}, p.o.Limits.BatchConcurrency)
	var wg sync.WaitGroup
	for i, r := range req.GetRequests() {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			items[i] = p.item(ctx, with, r)
		})
	}
	wg.Wait()
	return items
}

func (p predictions) item(ctx context.Context, with *pinned, r *pb.PredictRequest) *pb.PredictBatchItem {
	began := time.Now()
	item := &pb.PredictBatchItem{Id: r.GetId()}
	err := batchModel(with.model, r)
	if err != nil {
		p.count(with.model, with, began, err)
	} else {
		var resp *pb.PredictResponse
		if resp, err = p.answer(ctx, with, r, began, true); err == nil {
			item.Result = &pb.PredictBatchItem_Prediction{Prediction: resp}
			return item
		}
	}
	item.Result = &pb.PredictBatchItem_Error{Error: status.Convert(err).Proto()}
	return item
}
