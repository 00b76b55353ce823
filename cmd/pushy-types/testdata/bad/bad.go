// Package bad has all that cannot be declared.
package bad

import (
	"encoding/json"
	"math/big"
	"time"

	"github.com/gopushy/pushy"
)

type Events struct {
	Any      any                 `json:"any"`
	Func     func()              `json:"func"`
	Complex  complex128          `json:"complex"`
	Raw      json.RawMessage     `json:"raw"`
	Big      *big.Int            `json:"big"`
	Deep     []Deep              `json:"deep"`
	Keys     map[bool]int        `json:"keys"`
	Stamped  Stamped             `json:"stamped"`
	Inline   struct{ time.Time } `json:"inline"`
	Reserved string              `json:"pushy:reserved"`
	Error    error               `json:"error"`
	Quoted   quoted              `json:"quoted,string"`
}

type quoted int

func (quoted) MarshalJSON() ([]byte, error) { return nil, nil }

type Deep struct {
	Inner map[string]struct {
		Ch chan<- int
	}
}

// Stamped has the method of the time that it embeds.
type Stamped struct {
	time.Time
	By string
}

var (
	_ pushy.Events[Events]
	_ pushy.Events[string]
)

func generic[T any]() (none pushy.Events[T]) { return none }
