package worker_test

import (
	"testing"

	"modelgate/inference/engine/enginetest"
)

func TestEngine(t *testing.T) { enginetest.Run(t, serving) }
