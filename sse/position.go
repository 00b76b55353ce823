package sse

import (
	"strings"

	"github.com/gopushy/pushy/broker"
)

// maxSince is the largest number of bytes of positions that a client sends.
const maxSince = 4 << 10

// none is the position in a channel that keeps no events.
const none = "-"

// since has the positions that a client sends when it reconnects, one for each channel.
type since struct {
	sent      bool
	broken    bool // they cannot be read, or are not those of the channels
	positions []*broker.Position
}

// parseSince parses the value of Last-Event-ID. What is not valid is not an error, after which
// EventSource would never reconnect: the client has lost its positions.
func parseSince(text string, channels int) since {
	if text == "" {
		return since{}
	}
	s := since{
		sent:   true,
		broken: true,
	}
	if len(text) > maxSince {
		return s
	}
	parts := strings.Split(text, ",")
	if len(parts) != channels {
		return s
	}
	positions := make([]*broker.Position, channels)
	for i, part := range parts {
		if part == none {
			continue
		}
		p, err := broker.ParsePosition(part)
		if err != nil || p == (broker.Position{}) {
			return s
		}
		positions[i] = &p
	}
	s.broken = false
	s.positions = positions
	return s
}

// of returns the position in a channel, or nil.
func (s *since) of(channel int) *broker.Position {
	if s.positions == nil {
		return nil
	}
	return s.positions[channel]
}

// appendPositions is the inverse of parseSince. A zero Position is none.
func appendPositions(b []byte, positions []broker.Position) []byte {
	for i, p := range positions {
		if i > 0 {
			b = append(b, ',')
		}
		if p.Epoch == "" {
			b = append(b, none...)
			continue
		}
		b = append(b, p.String()...)
	}
	return b
}
