package pushy_test

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// BenchmarkCommand is one small command and its answer over a real socket.
func BenchmarkCommand(b *testing.B) {
	srv := startServer(b, pushy.Options{Limits: pushy.Limits{CommandRate: -1}})
	srv.RegisterCommand("ping", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("pong", nil)
	})
	web := httptest.NewServer(srv)
	defer web.Close()
	conn, early, _, err := ws.Dial(b.Context(), strings.Replace(web.URL, "http", "ws", 1)+"/pushy/socket/websocket")
	require.NoError(b, err)
	defer conn.Close()
	var reader io.Reader = conn
	if early != nil {
		reader = early
	}
	_, err = wsutil.ReadServerText(struct {
		io.Reader
		io.Writer
	}{reader, conn})
	require.NoError(b, err)
	ping := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"command":"ping","data":{}}`))))
	answer := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(ping); err != nil {
			b.Fatal(err)
		}
		if _, err := reader.Read(answer); err != nil {
			b.Fatal(err)
		}
	}
}
