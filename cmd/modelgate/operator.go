package main

import (
	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// hasModel is an answer that tells a model's new state.
type hasModel interface {
	proto.Message
	GetModel() *modelgatev1.Model
}

// tell prints the answer to an operator's order.
func (a *app) tell(f *clientFlags, r hasModel, err error, says string) error {
	switch {
	case err != nil:
		return err
	case f.output == "json":
		return printJSON(a.out, r)
	}
	printf(a.out, "%s\n", says)
	a.modelTable(r.GetModel())
	return nil
}
