package calls

import "encoding/json"

// Channels is the body of the call channels.
type Channels struct {
	Prefix string `json:"prefix,omitempty"`
	Count  bool   `json:"count,omitempty"`
	Page
}

// ChannelsAnswer is the answer to it.
type ChannelsAnswer struct {
	Channels []Channel `json:"channels"`
	Next     string    `json:"next,omitempty"`
	Coverage
}

// Channel is a channel in ChannelsAnswer.
type Channel struct {
	Name        string `json:"name"`
	Subscribers *int   `json:"subscribers,omitempty"` // with Channels.Count
	Presence    bool   `json:"presence"`
}

// Members is the body of the call members.
type Members struct {
	Channel string `json:"channel"`
	Page
}

// MembersAnswer is the answer to it.
type MembersAnswer struct {
	Members  []Member `json:"members"`
	Presence bool     `json:"presence"`
	Next     string   `json:"next,omitempty"`
	Silent   []string `json:"silent"`
}

// Member is a member in MembersAnswer.
type Member struct {
	ID     string          `json:"id"`
	User   string          `json:"user,omitempty"`
	Member json.RawMessage `json:"member"`
}

// Connections is the body of the call connections.
type Connections struct {
	User    string `json:"user,omitempty"`
	Conn    string `json:"conn,omitempty"`
	Channel string `json:"channel,omitempty"`
	Page
}

// ConnectionsAnswer is the answer to it.
type ConnectionsAnswer struct {
	Connections []Connection `json:"connections"`
	Next        string       `json:"next,omitempty"`
	Coverage
}

// Connection is a connection in ConnectionsAnswer. Nodes describe connections to each other in the
// same way.
type Connection struct {
	ID           string   `json:"id"`
	User         string   `json:"user,omitempty"`
	Node         string   `json:"node"`
	Transport    string   `json:"transport"`
	Since        int64    `json:"since"` // Unix milliseconds
	Channels     []string `json:"channels"`
	ChannelCount int      `json:"channelCount"`
	Waiting      int64    `json:"waiting"` // bytes
}
