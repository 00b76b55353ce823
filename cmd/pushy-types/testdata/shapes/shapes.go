// Package shapes has all that can be declared.
package shapes

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/cmd/pushy-types/testdata/shapes/other"
)

type (
	// Events embed those of other channels.
	Events struct {
		Shared
		Shapes  Shapes               `json:"shapes"`
		Plain   string               `json:"plain,omitempty"` // an event exists, even if its data are empty
		Numbers []int                `json:"numbers"`
		Table   map[string][]*Line   `json:"table"`
		Grid    [2][]bool            `json:"grid"`
		Pages   Page[Line]           `json:"pages"`
		Counts  Page[map[string]int] `json:"counts"`
		Tree    Tree                 `json:"tree"`
	}

	// Shared are events of several channels.
	Shared struct {
		Ping time.Duration `json:"ping"`
	}
)

// Other marks in any place, and of other names, count as well.
type marks struct {
	events pushy.Events[Events]
	again  pushy.Events[Second]
}

// Second is marked in a field. This ends no comment: */
type Second = struct2

type struct2 struct {
	Line other.Line `json:"line"`
}

type (
	Shapes struct {
		other.Base
		*Late
		Title
		hidden
		Renamed other.Base `json:"ba se"`
		Level   Level
		Any     object            `json:"object"`
		ID      ID                `json:"id"`
		Line    *Line             `json:"line"`
		Maybe   *Line             `json:"maybe,omitempty"`
		Zero    time.Time         `json:"zero,omitzero"`
		Whole   other.Line        `json:"whole,omitempty"` // omitempty has no effect on a struct
		Bytes   []byte            `json:"bytes"`
		Byte    [3]byte           `json:"byte"`
		Address netip.Addr        `json:"address"`
		Hosts   map[netip.Addr]ID `json:"hosts,omitempty"`
		ByYear  map[int]float32   `json:"byYear" pushy:"nonnil"`
		Quoted  uint64            `json:"quoted,string"`
		Kept    string            `json:",omitempty"`
		Deep    **int             `json:"deep"`
		Number  json.Number       `json:"number"`
		Inline  struct {
			X int `json:"x"`
			// Y grows downwards.
			Y *int `json:"y"`
		} `json:"inline"`
		Empty   struct{}   `json:"empty"`
		Twice   []struct{} `json:"twice" pushy:"nonnil"`
		Skipped chan int   `json:"-"`
		private func()
	}

	// Title has the name of a field of other.Base.
	Title struct {
		Title string `json:"title"` // neither this one nor that of Base is written
	}

	Late struct {
		Late bool `json:"late"`
	}

	hidden struct {
		Seen rune `json:"seen"`
	}

	Line struct {
		Next *Line `json:"next"`
	}

	Page[T any] struct {
		Items []T  `json:"items"`
		More  bool `json:"more"`
	}

	Tree   []Tree
	Level  int
	ID     string
	object struct{}
)

// Sample has a value in each field that can have one.
func Sample() Shapes {
	n := 5
	p := &n
	s := Shapes{
		Late:    &Late{Late: true},
		Line:    &Line{Next: &Line{}},
		Maybe:   &Line{},
		Zero:    time.Unix(0, 0).UTC(),
		Bytes:   []byte("abc"),
		Address: netip.MustParseAddr("127.0.0.1"),
		Hosts:   map[netip.Addr]ID{netip.MustParseAddr("::1"): "localhost"},
		ByYear:  map[int]float32{2026: 1.5},
		Quoted:  1 << 63,
		Kept:    "kept",
		Deep:    &p,
		Number:  "12",
		Twice:   make([]struct{}, 2),
	}
	s.Inline.Y = p
	return s
}

// Least has no value in any field.
func Least() Shapes {
	return Shapes{
		ByYear: map[int]float32{},
		Twice:  []struct{}{},
	}
}
