package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// palette colours text, or doesn't.
type palette bool

const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

func (p palette) paint(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// palette is on for terminals, unless NO_COLOR is set.
func (a *app) palette(f *os.File) palette {
	return palette(isTerminal(f) && a.getenv("NO_COLOR", "") == "" && a.getenv("TERM", "") != "dumb")
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// cell is a text and its colour.
type cell struct{ text, colour string }

// table prints rows in columns as wide as their longest text.
type table struct {
	head []string
	rows [][]cell
}

func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

func (t *table) print(w io.Writer, p palette) {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = uniseg.StringWidth(h)
		for _, r := range t.rows {
			width[i] = max(width[i], uniseg.StringWidth(r[i].text))
		}
	}
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{h, faint}
	}
	for _, r := range append([][]cell{head}, t.rows...) {
		printf(w, "%s\n", line(r, width, p))
	}
}

func line(row []cell, width []int, p palette) string {
	var b strings.Builder
	for i, c := range row {
		b.WriteString(p.paint(c.colour, c.text))
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", width[i]-uniseg.StringWidth(c.text)+2))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// ago is a time as a table shows it.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := time.Since(t.AsTime())
	switch {
	case d < 0:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// compactJSON is m as the REST API writes it, on one line. protojson's own spacing differs from build to build.
func compactJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, b)
	return out.Bytes(), err
}

// printJSON prints m for scripts: indented, times in RFC 3339.
func printJSON(w io.Writer, m proto.Message) error {
	b, err := compactJSON(m)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return err
	}
	printf(w, "%s\n", out.Bytes())
	return nil
}
