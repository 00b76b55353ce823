// Package chart draws lines over a logarithmic axis as an SVG that is readable on light and on
// dark pages.
package chart

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Point is one measurement.
type Point struct{ X, Y float64 }

// Line is the line of one server.
type Line struct {
	Name   string
	Points []Point // in the order of X
	Strong bool    // drawn thicker
}

// Chart is a chart. The X axis is logarithmic and has a tick for each point. The Y axis is
// logarithmic if LogY is set, and begins at 0 otherwise.
type Chart struct {
	Title, X, Y string
	LogY        bool
	Lines       []Line
}

const (
	width, height = 860, 460
	left, right   = 72, 230 // margins of the plot; the legend is on the right
	top, bottom   = 52, 52
)

// All colors have the same brightness, so that they are visible on white and on black.
var colours = []string{
	"#2f81f7", "#e5534b", "#d18616", "#a371f7", "#2da44e", "#db61a2", "#8b949e",
	"#00a8b5", "#b08800", "#57606a", "#c45911", "#6f42c1", "#0a7d4f", "#9e6a03", "#bf3989",
}

const style = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #30363d }
  .back { fill: #0d1117 }
}
</style>`

// SVG returns the chart, or "" if it has no points.
func (c Chart) SVG() string {
	var xs, ys []float64
	for _, l := range c.Lines {
		for _, p := range l.Points {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	if len(xs) == 0 {
		return ""
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	low, high, ticks := c.scale(slices.Min(ys), slices.Max(ys))
	x := func(v float64) float64 {
		span := math.Log(xs[len(xs)-1] / xs[0])
		if span == 0 {
			return left
		}
		return left + (width-left-right)*math.Log(v/xs[0])/span
	}
	y := func(v float64) float64 {
		part := (v - low) / (high - low)
		if c.LogY {
			part = math.Log(v/low) / math.Log(high/low)
		}
		return height - bottom - (height-top-bottom)*part
	}

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s\n", width, height, html.EscapeString(c.Title), style)
	fmt.Fprintf(&b, `<rect class="back" width="%d" height="%d" rx="6"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="26">%s</text>`+"\n", left-50, html.EscapeString(c.Title))
	fmt.Fprintf(&b, `<text x="%d" y="44">%s</text>`+"\n", left-50, html.EscapeString(c.Y))
	for _, tick := range ticks {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y(tick), width-right, left-8, y(tick)+4, Short(tick))
	}
	for _, v := range xs {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(v), height-bottom+20, Short(v))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-10, html.EscapeString(c.X))
	for i, l := range c.Lines {
		if len(l.Points) == 0 {
			continue
		}
		colour, thick := colours[i%len(colours)], 1.8
		if l.Strong {
			thick = 3.6
		}
		var path strings.Builder
		for j, p := range l.Points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(j, 1)], x(p.X), y(p.Y))
		}
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="%.1f" stroke-linejoin="round" d="%s"/>`+"\n", colour, thick, path.String())
		for _, p := range l.Points {
			fmt.Fprintf(&b, `<circle fill="%s" cx="%.1f" cy="%.1f" r="%.1f"/>`, colour, x(p.X), y(p.Y), thick)
		}
	}
	c.legend(&b, y)
	b.WriteString("\n</svg>\n")
	return b.String()
}

// legend writes the name of each line at the height of its end, if there is room.
func (c Chart) legend(b *strings.Builder, y func(float64) float64) {
	const lineHeight = 17
	type entry struct {
		line int
		y    float64
	}
	var entries []entry
	for i, l := range c.Lines {
		if len(l.Points) > 0 {
			entries = append(entries, entry{i, y(l.Points[len(l.Points)-1].Y)})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return int(math.Copysign(1, a.y-b.y)) })
	// Move names down that would overlap, and then up those that are below the end.
	for i := 1; i < len(entries); i++ {
		entries[i].y = max(entries[i].y, entries[i-1].y+lineHeight)
	}
	limit := float64(height - bottom + 10)
	for i := len(entries) - 1; i >= 0; i-- {
		entries[i].y = min(entries[i].y, limit)
		limit = entries[i].y - lineHeight
	}
	for _, e := range entries {
		l, weight := c.Lines[e.line], 400
		if l.Strong {
			weight = 700
		}
		fmt.Fprintf(b, `<rect fill="%s" x="%d" y="%.1f" width="10" height="10" rx="2"/><text x="%d" y="%.1f" font-weight="%d">%s</text>`+"\n",
			colours[e.line%len(colours)], width-right+16, e.y-5, width-right+32, e.y+4, weight, html.EscapeString(l.Name))
	}
}

// scale returns the limits and ticks of the Y axis.
func (c Chart) scale(smallest, largest float64) (low, high float64, ticks []float64) {
	if largest <= 0 {
		largest = 1
	}
	if !c.LogY {
		step := math.Pow(10, math.Floor(math.Log10(largest)))
		for _, part := range []float64{.1, .2, .25, .5, 1} {
			if largest/(step*part) <= 6 {
				step *= part
				break
			}
		}
		high = math.Ceil(largest/step) * step
		for i := range int(math.Round(high/step)) + 1 {
			ticks = append(ticks, float64(i)*step)
		}
		return 0, high, ticks
	}
	if smallest <= 0 {
		smallest = largest / 1000
	}
	// Ticks are at 1, 2 and 5 times each power of ten, from below the minimum to above the
	// maximum.
	steps := []float64{1, 2, 5}
	tick := func(i int) float64 {
		power := int(math.Floor(float64(i) / 3))
		return steps[i-3*power] * math.Pow(10, float64(power))
	}
	first := 3 * int(math.Floor(math.Log10(smallest)))
	for tick(first+1) <= smallest {
		first++
	}
	last := first + 1
	for tick(last) < largest {
		last++
	}
	for i := first; i <= last; i++ {
		ticks = append(ticks, tick(i))
	}
	return tick(first), tick(last), ticks
}

// Short formats a tick.
func Short(v float64) string {
	switch {
	case v >= 1e6:
		return trim(v/1e6) + "M"
	case v >= 1e4:
		return trim(v/1e3) + "k"
	default:
		return trim(v)
	}
}

func trim(v float64) string {
	s := fmt.Sprintf("%.3f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
