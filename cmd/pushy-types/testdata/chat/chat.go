// Package chat is the example of the documentation.
package chat

import (
	"time"

	"github.com/gopushy/pushy"
)

// ChatEvents are the events of a chat.
type ChatEvents struct {
	Said Line     `json:"said"` // somebody has said something
	Left struct{} `json:"left"`
	// The topic is another one.
	// It can be empty.
	Topic string `json:"topic-changed"`
}

var _ pushy.Events[ChatEvents]

// Line is a line of the chat.
type Line struct {
	ID      int64     `json:"id"`
	From    Person    `json:"from"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
	ReplyTo *Line     `json:"replyTo,omitempty"`
	Tags    []string  `json:"tags"`
	secret  string
}

type Person struct {
	Name  string `json:"name"`
	Email string `json:"-"`
	Admin bool   `json:"admin,omitempty"`
}
