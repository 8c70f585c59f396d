package server

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

const (
	mostVersions    = 100
	usualHistory    = 50
	mostHistory     = 1000
	nothingPromoted = "the registry has no promoted version of this model yet"
)

// models is ModelService.
type models struct {
	pb.UnimplementedModelServiceServer
	*Server
}

// ListModels tells of every model.
func (m models) ListModels(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	resp := &pb.ListModelsResponse{}
	for _, st := range m.updater.List() {
		resp.Models = append(resp.Models, m.modelProto(st))
	}
	return resp, nil
}

// GetModel tells of one model.
func (m models) GetModel(ctx context.Context, req *pb.GetModelRequest) (*pb.GetModelResponse, error) {
	model, err := m.after(ctx, req.GetModel(), nil)
	if err != nil {
		return nil, err
	}
	return &pb.GetModelResponse{Model: model}, nil
}

// ListVersions lists what the registry has.
func (m models) ListVersions(ctx context.Context, req *pb.ListVersionsRequest) (*pb.ListVersionsResponse, error) {
	if err := m.known(ctx, req.GetModel()); err != nil {
		return nil, err
	}
	vs, err := m.updater.Versions(ctx, req.GetModel(), mostVersions)
	if err != nil {
		return nil, m.fail(ctx, err, ofOrder())
	}
	resp := &pb.ListVersionsResponse{}
	for _, v := range vs {
		resp.Versions = append(resp.Versions, versionProto(v))
	}
	return resp, nil
}

// History reads the decision ledger.
func (m models) History(ctx context.Context, req *pb.HistoryRequest) (*pb.HistoryResponse, error) {
	limit := int(req.GetLimit())
	if limit < 0 || limit > mostHistory {
		return nil, invalid("BAD_LIMIT", fmt.Sprintf("limit is %d: it must be from 1 to %d, or 0 for %d", limit, mostHistory, usualHistory))
	}
	if limit == 0 {
		limit = usualHistory
	}
	if req.GetModel() != "" {
		if err := m.known(ctx, req.GetModel()); err != nil {
			return nil, err
		}
	}
	entries, err := m.updater.History(req.GetModel(), limit)
	if err != nil {
		return nil, m.fail(ctx, err, ofOrder())
	}
	resp := &pb.HistoryResponse{}
	for _, e := range entries {
		resp.Entries = append(resp.Entries, entryProto(e))
	}
	return resp, nil
}

// Refresh checks the registry now.
func (m models) Refresh(ctx context.Context, req *pb.RefreshRequest) (*pb.RefreshResponse, error) {
	if err := m.known(ctx, req.GetModel()); err != nil {
		return nil, err
	}
	before, err := m.updater.Status(req.GetModel())
	if err == nil {
		err = m.updater.Refresh(ctx, req.GetModel())
	}
	model, err := m.after(ctx, req.GetModel(), err)
	if err != nil {
		return nil, err
	}
	after, err := m.updater.Status(req.GetModel())
	if err != nil {
		return nil, m.fail(ctx, err, ofOrder())
	}
	return &pb.RefreshResponse{Model: model, Swapped: !after.Active.Same(before.Active), Reason: refreshReason(before, after)}, nil
}

// refreshReason says what a check led to. One that finds what it found before writes no new decision.
func refreshReason(before, after modelstore.Status) string {
	switch {
	case after.Last.Time.IsZero():
		return nothingPromoted
	case after.Last.Time.After(before.Last.Time):
		return after.Last.Reason
	case after.Last.Candidate.Same(after.Active): // a swap clears what was refused before: a refusal would be written anew
		return fmt.Sprintf("%v serves, and the registry offers nothing else", after.Active)
	}
	return "nothing new; the last decision stands: " + after.Last.Reason
}

// Promote serves a version whatever the policy says.
func (m models) Promote(ctx context.Context, req *pb.PromoteRequest) (*pb.PromoteResponse, error) {
	number, err := m.ordered(ctx, req.GetModel(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	model, err := m.after(ctx, req.GetModel(), m.updater.Promote(ctx, req.GetModel(), number))
	if err != nil {
		return nil, err
	}
	return &pb.PromoteResponse{Model: model}, nil
}

// Rollback returns to the version before.
func (m models) Rollback(ctx context.Context, req *pb.RollbackRequest) (*pb.RollbackResponse, error) {
	if err := m.known(ctx, req.GetModel()); err != nil {
		return nil, err
	}
	model, err := m.after(ctx, req.GetModel(), m.updater.Rollback(ctx, req.GetModel()))
	if err != nil {
		return nil, err
	}
	return &pb.RollbackResponse{Model: model}, nil
}

// Pin serves a version and keeps it.
func (m models) Pin(ctx context.Context, req *pb.PinRequest) (*pb.PinResponse, error) {
	number, err := int64(0), m.known(ctx, req.GetModel())
	if err == nil && req.GetVersion() != "" {
		number, err = m.ordered(ctx, req.GetModel(), req.GetVersion())
	}
	if err != nil {
		return nil, err
	}
	model, err := m.after(ctx, req.GetModel(), m.updater.Pin(ctx, req.GetModel(), number))
	if err != nil {
		return nil, err
	}
	return &pb.PinResponse{Model: model}, nil
}

// Unpin follows the registry again.
func (m models) Unpin(ctx context.Context, req *pb.UnpinRequest) (*pb.UnpinResponse, error) {
	if err := m.known(ctx, req.GetModel()); err != nil {
		return nil, err
	}
	model, err := m.after(ctx, req.GetModel(), m.updater.Unpin(ctx, req.GetModel()))
	if err != nil {
		return nil, err
	}
	return &pb.UnpinResponse{Model: model}, nil
}

// ordered checks the model and the version that an order names.
func (m models) ordered(ctx context.Context, model, version string) (int64, error) {
	if err := m.known(ctx, model); err != nil {
		return 0, err
	}
	if version == "" {
		return 0, invalid("VERSION_MISSING", "version is missing: name one that the registry has")
	}
	number, err := modelstore.ParseVersion(version)
	if err != nil {
		return 0, invalid("BAD_VERSION", err.Error())
	}
	return number, nil
}

// after is the model after an order that ended with err.
func (m models) after(ctx context.Context, model string, err error) (*pb.Model, error) {
	if err != nil {
		return nil, m.fail(ctx, err, ofOrder())
	}
	if err := m.known(ctx, model); err != nil {
		return nil, err
	}
	st, err := m.updater.Status(model)
	if err != nil {
		return nil, m.fail(ctx, err, ofOrder())
	}
	return m.modelProto(st), nil
}

// WatchModels tells the state of models and each change, until the caller leaves or the server drains.
func (m models) WatchModels(req *pb.WatchModelsRequest, stream grpc.ServerStreamingServer[pb.WatchModelsResponse]) error {
	if err := unreadable(req); err != nil {
		return err
	}
	for _, name := range req.GetModels() {
		if err := m.known(stream.Context(), name); err != nil {
			return err
		}
	}
	ctx, cancel := m.untilDrained(stream.Context())
	defer cancel()
	err := m.updater.Watch(ctx, func(c modelstore.Change) error {
		if names := req.GetModels(); len(names) > 0 && !slices.Contains(names, c.Status.Name) {
			return nil
		}
		return stream.Send(&pb.WatchModelsResponse{Model: m.modelProto(c.Status), Change: c.What})
	})
	if stream.Context().Err() == nil && ctx.Err() != nil {
		err = errDraining
	}
	return m.fail(stream.Context(), err, ofOrder())
}

// untilDrained is a context that also ends when the server drains.
func (s *Server) untilDrained(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() { // ends with ctx, at the latest when cancel is called
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
