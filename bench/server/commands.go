package main

import (
	"context"
	"encoding/json"

	"github.com/gopushy/pushy"
)

// echoed is the data of the load generator.
type echoed struct {
	Token string `json:"t"`
	Pad   string `json:"p"`
}

// addCommands adds the commands that the load generator sends: echo, which answers with its data as
// it is, and typed, which decodes and encodes it.
func addCommands(srv *pushy.Server) {
	srv.RegisterCommand("echo", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("echo", data) // it fails only if the connection has ended
	})
	pushy.Handle(srv, "typed", func(_ context.Context, _ *pushy.Conn, data echoed) (echoed, error) { return data, nil })
}
