package video

import (
	"fmt"
	"math"
)

// setTable works out what each value of a pixel becomes, in the order and the precision of transformers.
func (s *spec) setTable(p processor) error {
	rescale := p.DoRescale == nil || *p.DoRescale
	normalize := p.DoNormalize == nil || *p.DoNormalize
	offset := p.offset()
	factor := 1.0 / 255
	if p.Rescale != nil {
		factor = *p.Rescale
	} else if offset {
		factor = 1.0 / 127.5
	}
	if rescale && (!isFinite(factor) || factor <= 0) {
		return fmt.Errorf("rescale_factor is %v: it must be positive", factor)
	}
	if normalize {
		if err := checkMoments(p.Mean, p.Std); err != nil {
			return err
		}
	}
	for c := range channels {
		mean, std := float32(0), float32(1)
		if normalize {
			mean, std = float32(p.Mean[c]), float32(p.Std[c])
		}
		fused := rescale && normalize && !offset
		if fused {
			mean, std = mean*float32(1/factor), std*float32(1/factor)
		}
		for v := range 256 {
			x := float32(v)
			if rescale && !fused {
				x *= float32(factor)
			}
			if rescale && offset {
				x--
			}
			if normalize {
				x = (x - mean) / std
			}
			s.table[c][v] = x
		}
	}
	return nil
}

// offset says whether pixels are shifted to [-1, 1] before they are normalised: ViViT's processor does that unless told not to.
func (p processor) offset() bool {
	if p.Offset != nil {
		return *p.Offset
	}
	for _, t := range []string{p.VideoType, p.ImageType, p.OldType} {
		switch t {
		case "VivitVideoProcessor", "VivitImageProcessor", "VivitFeatureExtractor":
			return true
		}
	}
	return false
}

func checkMoments(mean, std []float64) error {
	if len(mean) != channels || len(std) != channels {
		return fmt.Errorf("image_mean and image_std have %d and %d numbers: do_normalize needs %d each", len(mean), len(std), channels)
	}
	for c := range channels {
		if !isFinite(mean[c]) || !isFinite(std[c]) || math.Abs(mean[c]) > 1e6 || std[c] < 1e-6 || std[c] > 1e6 {
			return fmt.Errorf("image_mean %v and image_std %v can't be used", mean, std)
		}
	}
	return nil
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
