package main

import (
	"bufio"
	"io"
	"slices"
	"strings"
)

// grid lays out the small tables of commands such as status: columns two spaces apart under a header.
type grid struct {
	rows         [][]string
	rightAligned []int
}

func newGrid(header ...string) *grid { return &grid{rows: [][]string{header}} }

// right aligns the given columns to the right.
func (g *grid) right(columns ...int) *grid {
	g.rightAligned = columns
	return g
}

func (g *grid) row(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	g.rows = append(g.rows, cells)
}

func (g *grid) write(w io.Writer) error {
	widths := make([]int, len(g.rows[0]))
	for _, r := range g.rows {
		for i, c := range r {
			widths[i] = max(widths[i], displayWidth(c))
		}
	}
	bw := bufio.NewWriter(w)
	for _, r := range g.rows {
		var b strings.Builder
		for i, c := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-displayWidth(c))
			if slices.Contains(g.rightAligned, i) {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		bw.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	}
	return bw.Flush()
}
