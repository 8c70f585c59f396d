package video

import "fmt"

// Sampling is how frames are chosen from a clip.
type Sampling string

const (
	// Linspace chooses numpy.linspace(0, n-1, k) without its fractions: the first and the last frame are always among them.
	Linspace Sampling = "linspace"
	// HF chooses i*n//k as transformers' video processors do: the last frame is never among them.
	HF Sampling = "hf"
)

func (s Sampling) check() error {
	if s != Linspace && s != HF {
		return fmt.Errorf("%w: sampling is %q: it is %s or %s", ErrConfig, string(s), Linspace, HF)
	}
	return nil
}

// indices are the k frames chosen of n, in order. With n < k some come more than once.
func (s Sampling) indices(n, k int) []int {
	chosen := make([]int, k)
	for i := range chosen {
		switch {
		case s == HF:
			chosen[i] = i * n / k
		case i == 0:
		case i == k-1:
			chosen[i] = n - 1
		default:
			// numpy's order of operations: the step is rounded before it is multiplied.
			step := float64(n-1) / float64(k-1)
			chosen[i] = int(float64(i) * step)
		}
	}
	return chosen
}

// Rotation says what becomes of a clip whose container says that it is to be shown turned or mirrored, as phones' clips do.
type Rotation string

const (
	// IgnoreRotation takes frames as they are stored, as PyAV and torchvision do.
	IgnoreRotation Rotation = "ignore"
	// ApplyRotation takes frames as players show them, and as ffmpeg turns them.
	ApplyRotation Rotation = "apply"
)

func (r Rotation) check() error {
	if r != IgnoreRotation && r != ApplyRotation {
		return fmt.Errorf("%w: rotation is %q: it is %s or %s", ErrConfig, string(r), IgnoreRotation, ApplyRotation)
	}
	return nil
}
