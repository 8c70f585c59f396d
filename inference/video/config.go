package video

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	videoProcessorFile = "video_preprocessor_config.json"
	processorFile      = "preprocessor_config.json"
	modelFile          = "config.json"
	maxConfig          = 1 << 20 // bytes
	maxSide            = 4096    // pixels of what a model takes
	maxChosen          = 512     // frames that a model takes
	bilinearFilter     = 2       // as PIL numbers them
	bicubicFilter      = 3
)

// processor is what a bundle's processor file says. Where a key isn't there, what most processors of transformers do holds.
type processor struct {
	DoResize     *bool     `json:"do_resize"`
	DoCenterCrop *bool     `json:"do_center_crop"`
	DoRescale    *bool     `json:"do_rescale"`
	DoNormalize  *bool     `json:"do_normalize"`
	Size         *size     `json:"size"`
	CropSize     *size     `json:"crop_size"`
	Resample     *int      `json:"resample"`
	Rescale      *float64  `json:"rescale_factor"`
	Offset       *bool     `json:"offset"`
	Mean         []float64 `json:"image_mean"`
	Std          []float64 `json:"image_std"`
	Frames       *int      `json:"num_frames"`
	VideoType    string    `json:"video_processor_type"`
	ImageType    string    `json:"image_processor_type"`
	OldType      string    `json:"feature_extractor_type"`
}

// model is what config.json says of the frames that the model takes.
type model struct {
	Frames *int   `json:"num_frames"`
	Image  *size  `json:"image_size"`
	Video  *model `json:"video_config"`
	Vision *model `json:"vision_config"`
}

// A size is a number or an object, as transformers writes it.
type size struct {
	edge, height, width int
}

func (s *size) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &s.edge); err == nil {
		return nil
	}
	var pair []int
	if err := json.Unmarshal(data, &pair); err == nil && len(pair) == 2 {
		s.height, s.width = pair[0], pair[1]
		return nil
	}
	var object struct {
		Shortest *int `json:"shortest_edge"`
		Longest  *int `json:"longest_edge"`
		Height   *int `json:"height"`
		Width    *int `json:"width"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	switch {
	case object.Longest != nil:
		return errors.New("longest_edge is not supported: use shortest_edge, or height and width")
	case object.Shortest != nil:
		s.edge = *object.Shortest
	case object.Height != nil && object.Width != nil:
		s.height, s.width = *object.Height, *object.Width
	default:
		return errors.New("a size has shortest_edge, or height and width")
	}
	return nil
}

// square is the size with a lone number taken for both sides.
func (s size) square() (width, height int) {
	if s.edge != 0 {
		return s.edge, s.edge
	}
	return s.width, s.height
}

func (s size) check(name string) error {
	w, h := s.square()
	if w < 1 || h < 1 || w > maxSide || h > maxSide {
		return fmt.Errorf("%s is %d x %d: each side is 1 to %d pixels", name, w, h, maxSide)
	}
	return nil
}

// A spec is how a bundle's clips are prepared.
type spec struct {
	frames        int
	sampling      Sampling
	layout        Layout
	rotation      Rotation
	edge          int // of the shorter side after the resize; 0: whole is the size
	whole         [2]int
	cubic         bool
	width, height int // of what the model takes
	table         [channels][256]float32
}

// readSpec reads the processor's file in dir and config.json in modelDir. frames, unless 0, stands above what they say.
func readSpec(dir, modelDir string, frames int) (spec, error) {
	var p processor
	file := videoProcessorFile
	err := readJSON(filepath.Join(dir, file), &p)
	if errors.Is(err, fs.ErrNotExist) {
		file = processorFile
		err = readJSON(filepath.Join(dir, file), &p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return spec{}, fmt.Errorf("%w: %s has neither %s nor %s: save the processor beside the model: processor.save_pretrained(folder)",
			ErrConfig, dir, videoProcessorFile, processorFile)
	}
	if err != nil {
		return spec{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var m model
	if err := readJSON(filepath.Join(modelDir, modelFile), &m); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return spec{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if frames != 0 {
		m.Frames = &frames
	}
	s, err := newSpec(p, m)
	if err != nil {
		return spec{}, fmt.Errorf("%w: %s: %w", ErrConfig, filepath.Join(dir, file), err)
	}
	return s, nil
}

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("%s is larger than %d bytes", path, maxConfig)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func newSpec(p processor, m model) (s spec, err error) {
	if s.frames, err = chooseFrames(p, m); err != nil {
		return s, err
	}
	if err := s.setSizes(p); err != nil {
		return s, err
	}
	if image := first(m.Image, m.Video.image(), m.Vision.image()); image != nil {
		if w, h := image.square(); w != s.width || h != s.height {
			return s, fmt.Errorf("frames come out as %d x %d pixels, and %s says that the model takes %d x %d", s.width, s.height, modelFile, w, h)
		}
	}
	return s, s.setTable(p)
}

func (m *model) image() *size {
	if m == nil {
		return nil
	}
	return m.Image
}

func (m *model) frames() *int {
	if m == nil {
		return nil
	}
	return m.Frames
}

// first is the first that is there.
func first[T any](all ...*T) *T {
	for _, p := range all {
		if p != nil {
			return p
		}
	}
	return nil
}

func chooseFrames(p processor, m model) (int, error) {
	n := first(m.Frames, m.Video.frames(), m.Vision.frames(), p.Frames)
	if n == nil {
		return 0, fmt.Errorf("num_frames is neither there nor in %s: it says how many frames the model takes", modelFile)
	}
	if *n < 1 || *n > maxChosen {
		return 0, fmt.Errorf("num_frames is %d: it is 1 to %d", *n, maxChosen)
	}
	return *n, nil
}

func (s *spec) setSizes(p processor) error {
	if p.DoResize != nil && !*p.DoResize {
		return errors.New("do_resize is false: a model takes frames of one size, so they must be resized")
	}
	if p.Size == nil {
		return errors.New("size is missing")
	}
	if err := p.Size.check("size"); err != nil {
		return err
	}
	s.edge, s.whole = p.Size.edge, [2]int{p.Size.width, p.Size.height}
	switch {
	case p.Resample == nil || *p.Resample == bilinearFilter:
	case *p.Resample == bicubicFilter:
		s.cubic = true
	default:
		return fmt.Errorf("resample is %d: %d (bilinear) and %d (bicubic) are supported", *p.Resample, bilinearFilter, bicubicFilter)
	}
	if crop := p.DoCenterCrop; (crop == nil && p.CropSize == nil) || (crop != nil && !*crop) {
		if s.edge != 0 {
			return errors.New("without do_center_crop the frames' size would depend on the clip: size needs height and width")
		}
		s.width, s.height = s.whole[0], s.whole[1]
		return nil
	}
	if p.CropSize == nil {
		return errors.New("do_center_crop is true and crop_size is missing")
	}
	if err := p.CropSize.check("crop_size"); err != nil {
		return err
	}
	s.width, s.height = p.CropSize.square()
	if w, h := p.Size.square(); s.width > w || s.height > h {
		return fmt.Errorf("crop_size is %d x %d and size only %d x %d: frames would need a border", s.width, s.height, w, h)
	}
	return nil
}
