// Package chart draws groups of bars as an SVG that is readable on light and on dark pages.
package chart

import (
	"fmt"
	"html"
	"strings"
)

// Bar is the value of one server.
type Bar struct {
	Name   string
	Value  float64
	Text   string // the value, beside the bar
	Strong bool   // drawn in another color
}

// Group has the bars of one figure. The longest bar of each group has the same length.
type Group struct {
	Title string
	Unit  string
	Bars  []Bar
}

// Chart is a chart of groups, two beside each other.
type Chart struct {
	Title  string
	Groups []Group
}

const (
	width      = 860
	margin     = 24
	column     = (width - 3*margin) / 2
	nameWidth  = 118 // of the names before the bars
	textWidth  = 52  // of the values after the bars
	lineHeight = 21
	barHeight  = 13
	headHeight = 46 // of a group, above its bars
	topHeight  = 48
)

const style = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.group { font-weight: 600 }
.unit { font-size: 12px; fill: #59636e }
.strong { font-weight: 700 }
.back { fill: #ffffff }
.bar { fill: #aab2bd }
.bar.strong { fill: #1f6feb }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .unit { fill: #9198a1 }
  .back { fill: #0d1117 }
  .bar { fill: #59636e }
  .bar.strong { fill: #4493f8 }
}
</style>`

// SVG returns the chart, or "" if it has no bars.
func (c Chart) SVG() string {
	var groups []Group
	for _, g := range c.Groups {
		if len(g.Bars) > 0 {
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 {
		return ""
	}
	var b strings.Builder
	y := topHeight
	for i := 0; i < len(groups); i += 2 {
		most := 0
		for j, g := range groups[i:min(i+2, len(groups))] {
			g.draw(&b, margin+j*(column+margin), y)
			most = max(most, len(g.Bars))
		}
		y += headHeight + most*lineHeight + margin
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s\n"+
		`<rect class="back" width="%d" height="%d" rx="6"/>`+"\n"+`<text class="title" x="%d" y="30">%s</text>`+"\n%s</svg>\n",
		width, y, html.EscapeString(c.Title), style, width, y, margin, html.EscapeString(c.Title), b.String())
}

// draw draws a group with its upper left corner at x, y.
func (g Group) draw(b *strings.Builder, x, y int) {
	fmt.Fprintf(b, `<text class="group" x="%d" y="%d">%s</text><text class="unit" x="%d" y="%d">%s</text>`+"\n",
		x, y+16, html.EscapeString(g.Title), x, y+34, html.EscapeString(g.Unit))
	longest := 0.0
	for _, bar := range g.Bars {
		longest = max(longest, bar.Value)
	}
	for i, bar := range g.Bars {
		class := ""
		if bar.Strong {
			class = " strong"
		}
		top := y + headHeight + i*lineHeight
		length := 1.0
		if longest > 0 {
			length = max(1, bar.Value/longest*float64(column-nameWidth-textWidth))
		}
		fmt.Fprintf(b, `<text class="name%s" x="%d" y="%d">%s</text>`+
			`<rect class="bar%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+
			`<text class="value%s" x="%.1f" y="%d">%s</text>`+"\n",
			class, x, top+11, html.EscapeString(bar.Name), class, x+nameWidth, top, length, barHeight,
			class, float64(x+nameWidth)+length+6, top+11, html.EscapeString(bar.Text))
	}
}
