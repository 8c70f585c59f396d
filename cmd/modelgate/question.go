package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// longestLine is the longest line that predict reads; the server's own limit is what decides.
const longestLine = 16 << 20

// A question is what all inputs of one call have in common.
type question struct {
	model string
	topK  int32
	file  string // where the clip is from
	clip  []byte
	large *largeClip // in place of clip
}

// takeClip reads the clip, and hands out the text beside it, or once none.
func (q *question) takeClip(file string, args []string) (texts, error) {
	if len(args) > 1 {
		return nil, usagef("with --video there is one text at most, and there are %d: put it in quotes", len(args))
	}
	var err error
	if q.clip, q.large, err = openClip(file); err != nil {
		return nil, err
	}
	q.file = filepath.Base(file)
	if len(args) == 1 {
		q.model = cmp.Or(q.model, "fusion")
		return sliceTexts(args), nil
	}
	q.model = cmp.Or(q.model, "video")
	asked := false
	return func() (*string, error) {
		if asked {
			return nil, io.EOF
		}
		asked = true
		return nil, nil
	}, nil
}

func (q *question) request(text *string, id string) *modelgatev1.PredictRequest {
	r := &modelgatev1.PredictRequest{Model: cmp.Or(q.model, "text"), TopK: q.topK, Text: text, Id: id}
	if q.file != "" && q.large == nil {
		r.Video = &modelgatev1.Video{Source: &modelgatev1.Video_Clip{Clip: q.clip}}
	}
	return r
}

// texts hands out one text after the other, then io.EOF. A clip alone comes with none.
type texts func() (*string, error)

func sliceTexts(all []string) texts {
	return func() (*string, error) {
		if len(all) == 0 {
			return nil, io.EOF
		}
		t := all[0]
		all = all[1:]
		return &t, nil
	}
}

// lineTexts reads lines. Those without anything but white space are no texts.
func lineTexts(r io.Reader) texts {
	s := bufio.NewScanner(r)
	s.Buffer(nil, longestLine)
	return func() (*string, error) {
		for s.Scan() {
			if line := s.Text(); strings.TrimSpace(line) != "" {
				return &line, nil
			}
		}
		if s.Err() != nil {
			return nil, fmt.Errorf("read standard input: %w", s.Err())
		}
		return nil, io.EOF
	}
}
