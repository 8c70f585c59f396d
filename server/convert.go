package server

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"modelgate/inference"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// modelProto tells of a model: what the updater knows of it, and how the process of the version that serves fares.
func (s *Server) modelProto(st modelstore.Status) *pb.Model {
	m := modelProto(st)
	h, err := s.store.Acquire(st.Name)
	if err != nil {
		return m // nothing serves, or nothing serves any more
	}
	defer h.Release()
	if x := h.Model().Health(); x != (inference.Health{}) && h.Version().Same(st.Active) {
		m.Worker = &pb.Worker{Deaths: int64(x.Deaths), Killers: int64(x.Killers), Refused: int64(x.Refused)}
	}
	return m
}

func modelProto(s modelstore.Status) *pb.Model {
	m := &pb.Model{
		Name: s.Name, RegisteredName: s.Registered, State: stateProto(s), Active: versionProto(s.Active), Standby: versionProto(s.Standby),
		Candidate: versionProto(s.Candidate), F1Threshold: s.Threshold, LastDecision: entryProto(s.Last), LastCheck: timeProto(s.LastCheck),
		LastError: s.LastError, Held: heldText(s), Phase: string(s.Phase),
	}
	if !s.Active.IsZero() {
		m.Since = timeProto(s.Since)
	}
	for _, q := range s.Quarantine {
		m.Quarantined = append(m.Quarantined, &pb.QuarantinedVersion{Version: q.Version.ID(), Since: timeProto(q.Since), Why: q.Why})
	}
	if s.Pin != 0 {
		m.Pinned = strconv.FormatInt(s.Pin, 10)
	}
	return m
}

func stateProto(s modelstore.Status) pb.ModelState {
	switch active, candidate := !s.Active.IsZero(), !s.Candidate.IsZero(); {
	case active && candidate:
		return pb.ModelState_MODEL_STATE_UPDATING
	case active:
		return pb.ModelState_MODEL_STATE_SERVING
	case candidate:
		return pb.ModelState_MODEL_STATE_LOADING
	}
	return pb.ModelState_MODEL_STATE_EMPTY
}

func heldText(s modelstore.Status) string {
	if s.Hold == nil {
		return ""
	}
	return fmt.Sprintf("the operator's %s at %s holds, until the registry's pointer moves or the model is unpinned",
		s.Hold.Why, s.Hold.Since.UTC().Format(time.RFC3339))
}

func versionProto(v modelstore.Version) *pb.ModelVersion {
	if v.IsZero() {
		return nil
	}
	p := &pb.ModelVersion{Version: v.ID(), RegisteredName: v.Registered, Metric: v.F1.Metric, Created: timeProto(v.Created),
		Source: v.Source, Run: v.Run, Digest: v.Digest, Pointer: v.Pointer}
	if v.F1.Known {
		p.F1 = &v.F1.Value
	} else {
		p.F1Unknown = v.F1.Why
	}
	return p
}

func entryProto(e modelstore.Entry) *pb.LedgerEntry {
	if e.Time.IsZero() {
		return nil
	}
	return &pb.LedgerEntry{Time: timeProto(e.Time), Model: e.Model, Candidate: versionProto(e.Candidate), Active: versionProto(e.Active),
		F1Threshold: e.Threshold, Outcome: string(e.Outcome), Code: e.Code, Reason: e.Reason, Actor: e.Actor, Seconds: e.Seconds}
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
