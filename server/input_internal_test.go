package server

import (
	"errors"
	"math"
	"testing"

	"modelgate/inference"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// A prediction that makes no sense is an error, never a verdict, whoever made it.
func TestResponse(t *testing.T) {
	good := inference.Prediction{Classes: []inference.Class{{Label: "bad", Score: 0.7}, {Label: "fine", Score: 0.3}}, Label: "bad", Score: 0.7,
		PositiveLabel: "fine", Decision: inference.BelowThreshold, Threshold: 0.5}
	v := modelstore.Version{Model: "text", Number: 3}
	for _, c := range []struct {
		name   string
		change func(*inference.Prediction)
		ok     bool
	}{
		{"a good one", func(*inference.Prediction) {}, true},
		{"no decision", func(p *inference.Prediction) { p.Decision = inference.Unspecified }, false},
		{"an unknown decision", func(p *inference.Prediction) { p.Decision = 17 }, false},
		{"no classes", func(p *inference.Prediction) { p.Classes = nil }, false},
		{"the positive label is no class", func(p *inference.Prediction) { p.PositiveLabel = "other" }, false},
		{"NaN", func(p *inference.Prediction) { p.Classes[1].Score = math.NaN() }, false},
		{"NaN elsewhere", func(p *inference.Prediction) { p.Classes[0].Score = math.NaN() }, false},
		{"above 1", func(p *inference.Prediction) { p.Classes[0].Score = 1.5 }, false},
		{"below 0", func(p *inference.Prediction) { p.Classes[1].Score = -0.1 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good
			p.Classes = append([]inference.Class(nil), good.Classes...)
			c.change(&p)
			resp, err := response(&pb.PredictRequest{Id: "1"}, v, p)
			switch {
			case c.ok && (err != nil || resp.GetScore() != 0.3 || resp.GetVersion() != "3" || resp.GetDecision() != pb.Decision_DECISION_BELOW_THRESHOLD):
				t.Errorf("%v, %v", resp, err)
			case !c.ok && (resp != nil || !errors.Is(err, errBroken)):
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}
