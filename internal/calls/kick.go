package calls

import "encoding/json"

// Kick is the body of the call kick.
type Kick struct {
	Target string `json:"target"`
	Reason string `json:"reason,omitempty"`
	Until  *int64 `json:"until,omitempty"` // Unix seconds
}

// KickAnswer is the answer to it.
type KickAnswer struct {
	Closed int `json:"closed"`
	Coverage
}

// Unban is the body of the call unban.
type Unban struct {
	Target string `json:"target"`
}

// UnbanAnswer is the answer to it.
type UnbanAnswer struct {
	Lifted bool `json:"lifted"`
	Coverage
}

// Bans is the body of the call bans.
type Bans struct {
	Prefix string `json:"prefix,omitempty"`
	Page
}

// BansAnswer is the answer to it.
type BansAnswer struct {
	Bans []Ban  `json:"bans"`
	Next string `json:"next,omitempty"`
}

// Ban is a ban in BansAnswer.
type Ban struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
	Since  int64  `json:"since"` // Unix seconds
	Until  int64  `json:"until"` // Unix seconds
}

// Send is the body of the call send.
type Send struct {
	User  string          `json:"user,omitempty"`
	Conn  string          `json:"conn,omitempty"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// SendAnswer is the answer to it.
type SendAnswer struct {
	Sent int `json:"sent"`
	Coverage
}
