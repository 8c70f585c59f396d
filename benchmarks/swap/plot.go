package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A spread is what the plot shows of one series at one place.
type spread struct {
	x              float64
	p50, p99, most time.Duration
}

// A group is the spreads of one colour.
type group struct {
	name    string
	colour  color.Color
	spreads []spread
}

// Two colours that colour-blind readers tell apart.
func blue() color.Color   { return color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff} }
func orange() color.Color { return color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff} }

// plot draws the publication and the phases side by side.
func (r measured) plot(path string) error {
	left, err := r.publishPlot()
	if err != nil {
		return err
	}
	right, err := r.phasesPlot()
	if err != nil {
		return err
	}
	canvas := vgsvg.New(30*vg.Centimeter, 13*vg.Centimeter)
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Path())
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: 8 * vg.Millimeter, PadTop: 3 * vg.Millimeter, PadBottom: 2 * vg.Millimeter, PadLeft: 3 * vg.Millimeter, PadRight: 3 * vg.Millimeter}
	for i, p := range plot.Align([][]*plot.Plot{{left, right}}, tiles, dc)[0] {
		[]*plot.Plot{left, right}[i].Draw(p)
	}
	return writeSVG(canvas, path)
}

func writeSVG(canvas *vgsvg.Canvas, path string) error {
	var b strings.Builder
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// Without the font's file, browsers fall back to a serif one.
	svg := strings.ReplaceAll(b.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return os.WriteFile(path, []byte(svg), 0o644) //nolint:gosec // for everybody to read
}

func (r measured) publishPlot() (*plot.Plot, error) {
	held := group{name: "write lock held", colour: blue()}
	wait := group{name: "wait for the lock", colour: orange()}
	var names []string
	for i := range r.publish {
		p, x := &r.publish[i], float64(i)
		name := fmt.Sprintf("%d\nwaiting", p.readers)
		switch {
		case p.does != waits:
			name = fmt.Sprintf("%d\npredicting", p.readers)
		case p.readers == 0:
			name = "0"
		}
		names = append(names, name)
		held.spreads = append(held.spreads, spread{x - 0.13, p.held.quantile(50), p.held.quantile(99), p.held.most()})
		wait.spreads = append(wait.spreads, spread{x + 0.13, p.wait.quantile(50), p.wait.quantile(99), p.wait.most()})
	}
	p := newPlot("Publication of a version", "readers that hold a pin", names)
	if err := bar(p, heldBar, len(names)); err != nil {
		return nil, err
	}
	return p, add(p, held, wait)
}

func (r measured) phasesPlot() (*plot.Plot, error) {
	var names []string
	for _, phase := range phases() {
		names = append(names, strings.Replace(string(phase), "_", "\n", 1))
	}
	names = append(names, "whole\nswap")
	p := newPlot("Phases of a swap, from a folder to serving", "phase (the drain comes after the swap)", names)
	var groups []group
	for i := range r.phases {
		bundle := &r.phases[i]
		g := group{name: fmt.Sprintf("%s, %.1f MB", bundle.bundle, float64(bundle.bytes)/1e6), colour: []color.Color{blue(), orange()}[i%2]}
		shift := 0.26*float64(i) - 0.13
		for x, phase := range phases() {
			s := bundle.phases[phase]
			g.spreads = append(g.spreads, spread{float64(x) + shift, s.quantile(50), s.overall99(), s.most()})
		}
		g.spreads = append(g.spreads, spread{float64(len(phases())) + shift, bundle.total.quantile(50), bundle.total.overall99(), bundle.total.most()})
		groups = append(groups, g)
	}
	return p, add(p, groups...)
}

func newPlot(title, xLabel string, names []string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font.Size = 13
	p.Title.Padding = 3 * vg.Millimeter
	p.X.Label.Text, p.Y.Label.Text = xLabel, "time (log scale)"
	p.X.Label.Padding = 2 * vg.Millimeter
	p.Y.Scale = plot.LogScale{}
	for i, name := range names {
		if !strings.Contains(name, "\n") {
			names[i] += "\n " // so that all first lines are at one height
		}
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	for _, label := range []*draw.TextStyle{&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		label.Font.Size = 9
	}
	for _, text := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		text.Font.Variant = "Sans"
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.ThumbnailWidth = 4 * vg.Millimeter
	p.Legend.Padding = 1 * vg.Millimeter
	p.Legend.XOffs, p.Legend.YOffs = 2*vg.Millimeter, -1*vg.Millimeter
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color = color.Gray{Y: 0xdd}
	p.Add(grid)
	return p
}

// decades marks every power of ten in the range, with its unit.
func decades(low, high float64) plot.Ticker {
	var ticks plot.ConstantTicks
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		v := math.Pow(10, e)
		ticks = append(ticks, plot.Tick{Value: v, Label: short(time.Duration(math.Round(v * 1e9)))})
	}
	return ticks
}

// add draws the groups: a line from the median to the largest value, and a mark at median, p99 and maximum.
func add(p *plot.Plot, groups ...group) error {
	low, high := math.Inf(1), 0.0
	for _, g := range groups {
		for _, s := range g.spreads {
			low, high = min(low, s.p50.Seconds()), max(high, s.most.Seconds())
			line, err := plotter.NewLine(plotter.XYs{{X: s.x, Y: s.p50.Seconds()}, {X: s.x, Y: s.most.Seconds()}})
			if err != nil {
				return err
			}
			line.Color, line.Width = g.colour, 1.2
			p.Add(line)
		}
		for _, mark := range marks() {
			if err := addMarks(p, g, mark); err != nil {
				return err
			}
		}
	}
	for _, g := range groups {
		p.Legend.Add(g.name, swatch(g.colour))
	}
	for _, m := range marks() {
		p.Legend.Add(m.name, glyph(m.shape, color.Gray{Y: 0x44}))
	}
	// Whole decades, and above them room for the legend, which takes a quarter of the height.
	bottom, top := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	p.Y.Tick.Marker = decades(low, high)
	p.Y.Min, p.Y.Max = math.Pow(10, bottom), math.Pow(10, top+(top-bottom)/3)
	return nil
}

// A mark is one value of a spread and how it looks.
type mark struct {
	name  string
	shape draw.GlyphDrawer
	of    func(spread) time.Duration
}

func marks() []mark {
	return []mark{
		{"median", draw.CircleGlyph{}, func(s spread) time.Duration { return s.p50 }},
		{"p99", draw.TriangleGlyph{}, func(s spread) time.Duration { return s.p99 }},
		{"max", draw.CrossGlyph{}, func(s spread) time.Duration { return s.most }},
	}
}

func addMarks(p *plot.Plot, g group, m mark) error {
	points := make(plotter.XYs, len(g.spreads))
	for i, s := range g.spreads {
		points[i] = plotter.XY{X: s.x, Y: m.of(s).Seconds()}
	}
	scatter, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	scatter.GlyphStyle = style(m.shape, g.colour)
	p.Add(scatter)
	return nil
}

// bar is the line under which the p99 must lie.
func bar(p *plot.Plot, at time.Duration, places int) error {
	line, err := plotter.NewLine(plotter.XYs{{X: -0.5, Y: at.Seconds()}, {X: float64(places) - 0.5, Y: at.Seconds()}})
	if err != nil {
		return err
	}
	line.Color, line.Dashes = blue(), []vg.Length{4, 3}
	p.Add(line)
	p.Legend.Add("bar for the p99 held: "+short(at), line)
	return nil
}

func style(shape draw.GlyphDrawer, c color.Color) draw.GlyphStyle {
	return draw.GlyphStyle{Color: c, Shape: shape, Radius: 3}
}

// glyph and swatch are what the legend shows.
func glyph(shape draw.GlyphDrawer, c color.Color) plot.Thumbnailer {
	return &plotter.Scatter{GlyphStyle: style(shape, c)}
}

func swatch(c color.Color) plot.Thumbnailer {
	return &plotter.Line{LineStyle: draw.LineStyle{Color: c, Width: 3}}
}
