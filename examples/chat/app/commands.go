package app

import (
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy"
)

// line is the data of an event in a room. The server sets From, so a client cannot forge it.
type line struct {
	From person `json:"from"`
	Time int64  `json:"time"` // Unix milliseconds: pages also show lines that were said earlier
	Text string `json:"text,omitempty"`
	Dice []int  `json:"dice,omitempty"`
}

// say sends a message to everybody in a room: {"channel":…,"text":…}.
func say(srv *pushy.Server, conn *pushy.Conn, data json.RawMessage, channels *pushy.Channels) {
	var ask struct{ Channel, Text string }
	if err := json.Unmarshal(data, &ask); err != nil {
		refuse(conn, "bad-data", "Command say needs a channel and a text string")
		return
	}
	ask.Text = strings.TrimSpace(ask.Text)
	if n := utf8.RuneCountInString(ask.Text); n < 1 || n > 500 {
		refuse(conn, "bad-text", "A message has 1 to 500 characters")
		return
	}
	publish(srv, conn, channels, ask.Channel, "message", line{Text: ask.Text})
}

// roll rolls two dice, and sends the result to everybody in a room: {"channel":…}.
func roll(srv *pushy.Server, conn *pushy.Conn, data json.RawMessage, channels *pushy.Channels) {
	var ask struct{ Channel string }
	if err := json.Unmarshal(data, &ask); err != nil {
		refuse(conn, "bad-data", "Command roll needs a channel")
		return
	}
	publish(srv, conn, channels, ask.Channel, "roll", line{Dice: []int{rand.IntN(6) + 1, rand.IntN(6) + 1}})
}

// publish sends a line from conn's person to a room that conn is in.
func publish(srv *pushy.Server, conn *pushy.Conn, channels *pushy.Channels, room, event string, l line) {
	if ch, ok := channels.Lookup(room); !ok || !ch.Has(conn) {
		refuse(conn, "not-in-room", "You are not in that room")
		return
	}
	l.From, l.Time = conn.User().(person), time.Now().UnixMilli()
	if err := srv.Publish(conn.Context(), room, event, l); err != nil {
		slog.Error("cannot publish", "room", room, "error", err)
		refuse(conn, "try-again", "The message was not sent. Try again.")
	}
}

func refuse(conn *pushy.Conn, code, message string) {
	_ = conn.ReplyError(&pushy.Error{Code: code, Message: message}) // a client that has disconnected needs no answer
}
