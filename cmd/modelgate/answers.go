package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// answers prints answers.
type answers struct {
	a      *app
	json   bool
	p      palette
	failed int
	all    int
}

func newAnswers(a *app, output string) *answers {
	return &answers{a: a, json: output == "json", p: a.palette(a.out)}
}

func (p *answers) print(s *sent) error {
	p.all++
	if s.answer.GetError() != nil {
		p.failed++
	}
	if p.json {
		b, err := compactJSON(s.answer)
		if err != nil {
			return err
		}
		printf(p.a.out, "%s\n", b)
		return nil
	}
	if e := s.answer.GetError(); e != nil {
		printf(p.a.err, "%s %s  %s\n", p.p.paint(red, "error"), inputText(s.text, s.file, 40), e.GetMessage())
		return nil
	}
	r := s.answer.GetPrediction()
	printf(p.a.out, "%s  %.3f %s  %s  %s  %s\n", p.p.paint(bold, fmt.Sprintf("%-12s", r.GetLabel())), r.GetScore(),
		bar(r.GetScore()), p.decision(r), p.p.paint(faint, origin(r)), inputText(s.text, s.file, 60)+notes(r))
	for _, line := range details(r, s.file != "") {
		printf(p.a.out, "%14s%s\n", "", p.p.paint(faint, line))
	}
	return nil
}

// origin says what gave an answer.
func origin(r *modelgatev1.PredictResponse) string {
	version := r.GetModel() + " v" + r.GetVersion()
	switch r.GetPath() {
	case modelgatev1.Path_PATH_LATE_SCORE:
		return r.GetModel() + ", late score"
	case modelgatev1.Path_PATH_TEXT_ONLY, modelgatev1.Path_PATH_VIDEO_ONLY:
		return version + " alone"
	}
	return version
}

// details are lines below an answer: what it was put together from, why it decides nothing, and where the time went. Where a text alone
// spent it is in the JSON: most texts come many at a time.
func details(r *modelgatev1.PredictResponse, clip bool) []string {
	var lines []string
	if parts := r.GetParts(); len(parts) > 1 {
		var sum []string
		for _, part := range parts {
			sum = append(sum, fmt.Sprintf("%.4g of %s v%s, %.3f", part.GetWeight(), part.GetModel(), part.GetVersion(), part.GetScore()))
		}
		lines = append(lines, strings.Join(sum, "; "))
	}
	if r.GetReason() != "" {
		lines = append(lines, r.GetReason())
	}
	if t := r.GetTimings(); clip && t != nil {
		lines = append(lines, fmt.Sprintf("decoded in %s, waited %s, computed in %s", rounded(t.GetDecodeSeconds()), rounded(t.GetQueueSeconds()), rounded(t.GetComputeSeconds())))
	}
	return lines
}

func rounded(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}

// decision is what the score means, in words of one width.
func (p *answers) decision(r *modelgatev1.PredictResponse) string {
	switch r.GetDecision() {
	case modelgatev1.Decision_DECISION_AT_OR_ABOVE_THRESHOLD:
		return p.p.paint(red, fmt.Sprintf("%-20s", fmt.Sprintf("%s >= %.4g", r.GetPositiveLabel(), r.GetThreshold())))
	case modelgatev1.Decision_DECISION_BELOW_THRESHOLD:
		return p.p.paint(green, fmt.Sprintf("%-20s", fmt.Sprintf("%s < %.4g", r.GetPositiveLabel(), r.GetThreshold())))
	}
	return fmt.Sprintf("%-20s", "undecided")
}

func (p *answers) result() error {
	if p.failed > 0 {
		return fmt.Errorf("%d of %d inputs got no answer", p.failed, p.all)
	}
	return nil
}

// notes are what the caller should know about how its input was encoded.
func notes(r *modelgatev1.PredictResponse) string {
	said := ""
	if r.GetTruncated() {
		said = " (cut to the model's length)"
	}
	if r.GetFramesRepeated() {
		said += " (fewer frames than the model takes)"
	}
	return said
}

// inputText is a text in quotes, at most n runes of it, and the clip beside it; either may be missing.
func inputText(text *string, clip string, n int) string {
	if text == nil {
		return clip
	}
	return strings.TrimSuffix(shorten(*text, n)+" "+clip, " ")
}

// bar draws a score.
func bar(score float64) string {
	const width = 10
	full := min(max(int(score*width+0.5), 0), width)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// shorten is text on one line, in quotes, at most n runes of it.
func shorten(text string, n int) string {
	r := []rune(strings.Join(strings.Fields(text), " "))
	if len(r) > n {
		r = append(r[:n-1], '…')
	}
	return strconv.Quote(string(r))
}
