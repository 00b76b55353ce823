package calls

import "encoding/json"

// History is the body of the call history.
type History struct {
	Channel string  `json:"channel"`
	Before  *uint64 `json:"before,omitempty"`
	After   *uint64 `json:"after,omitempty"`
	Limit   *int    `json:"limit,omitempty"`
}

// HistoryAnswer is the answer to it.
type HistoryAnswer struct {
	Events   []PastEvent `json:"events"`
	Epoch    string      `json:"epoch"`
	Position Position    `json:"position"` // of the last event that was published
	More     bool        `json:"more"`
}

// PastEvent is an event in HistoryAnswer.
type PastEvent struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
	Time   int64           `json:"time"` // Unix milliseconds
}

// PositionOf is the body of the call position.
type PositionOf struct {
	Channel string `json:"channel"`
}

// PositionAnswer is the answer to it.
type PositionAnswer struct {
	Position Position `json:"position"`
}
