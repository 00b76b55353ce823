package pushy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// receiver receives messages of one connection over a real socket, and reads nothing in between.
type receiver interface {
	Send(text string)
	Receive() string
}

// httpReceiver is a SockJS session over HTTP.
type httpReceiver struct {
	t       *testing.T
	session string
	kind    string
	body    *bufio.Scanner
	queue   []string
}

func (r *httpReceiver) Send(text string) {
	r.t.Helper()
	quoted, err := json.Marshal([]string{text})
	require.NoError(r.t, err)
	res, err := http.Post(r.session+"/xhr_send", "text/plain", strings.NewReader(string(quoted)))
	require.NoError(r.t, err)
	require.NoError(r.t, res.Body.Close())
	require.Equal(r.t, 204, res.StatusCode)
}

func (r *httpReceiver) Receive() string {
	r.t.Helper()
	for len(r.queue) == 0 {
		if r.body == nil || !r.body.Scan() {
			res, err := http.Post(r.session+r.kind, "text/plain", nil)
			require.NoError(r.t, err)
			require.Equal(r.t, 200, res.StatusCode)
			r.t.Cleanup(func() { _ = res.Body.Close() })
			r.body = bufio.NewScanner(res.Body)
			r.body.Buffer(nil, 4<<20)
			continue
		}
		if frame := r.body.Text(); strings.HasPrefix(frame, "a") {
			require.NoError(r.t, json.Unmarshal([]byte(frame[1:]), &r.queue))
		} else {
			require.False(r.t, strings.HasPrefix(frame, "c"), "closed: %s", frame)
		}
	}
	text := r.queue[0]
	r.queue = r.queue[1:]
	return text
}

// A client that stops reading on a real socket is sent the newest of each key when it reads again,
// over all kinds of transports, and the exact number of the others.
func TestSlowClientsOnAllTransports(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]func(t *testing.T, baseURL string) receiver{
		"bareWebSocket":   func(t *testing.T, baseURL string) receiver { return dial(t, baseURL, false) },
		"sockJSWebSocket": func(t *testing.T, baseURL string) receiver { return dial(t, baseURL, true) },
		"tls":             func(t *testing.T, addr string) receiver { return dialTLS(t, addr) },
		"streaming": func(t *testing.T, baseURL string) receiver {
			return &httpReceiver{
				t:       t,
				session: baseURL + "/pushy/socket/000/streaming",
				kind:    "/xhr_streaming",
			}
		},
		"polling": func(t *testing.T, baseURL string) receiver {
			return &httpReceiver{
				t:       t,
				session: baseURL + "/pushy/socket/000/polling",
				kind:    "/xhr",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serve := serve
			if name == "tls" {
				serve = serveTLS
			}
			srv, baseURL := serve(t, pushy.Options{
				WriteTimeout: 10 * time.Minute,
				SockJS:       pushy.SockJS{DisconnectDelay: time.Hour},
			})
			r := connect(t, baseURL)
			if _, ok := r.(*httpReceiver); ok {
				require.Contains(t, r.Receive(), "pushy:connect")
			}
			r.Send(`{"command":"subscribe","data":{"channel":"prices"}}`)
			var stream ordercheck.Stream
			reader := stream.Reader()
			require.Contains(t, r.Receive(), "pushy:subscription-success")
			require.NoError(t, reader.Success())
			publish := func(text, latest string, droppable bool) {
				require.NoError(t, stream.Sent(text, latest, droppable))
				_, err := srv.PublishEvent(t.Context(), pushy.Event{
					Channel:   "prices",
					Name:      "price",
					Data:      text,
					Latest:    latest,
					Droppable: droppable,
				})
				require.NoError(t, err)
			}
			padding := strings.Repeat("x", 4<<10)
			until := time.Now().Add(clientPatience)
			for n := 0; srv.Stats().Dropped < 500; n++ { // at first, the system buffers everything
				require.True(t, time.Now().Before(until), "the socket accepts any number of bytes")
				publish(fmt.Sprint(n, padding), fmt.Sprint(n%7), false)
				if n%100 == 0 {
					publish(fmt.Sprint("other", n), "", false)
					publish(fmt.Sprint("droppable", n), "", true)
				}
			}
			publish("last", "", false)
			for reader.Complete() != nil {
				f, err := parseFrame(r.Receive())
				require.NoError(t, err)
				if f.Event == "pushy:dropped" {
					require.NoError(t, reader.Dropped(f.Data))
				} else {
					var text string
					require.NoError(t, json.Unmarshal(f.Data, &text))
					require.NoError(t, reader.Message(text))
				}
			}
			assert.GreaterOrEqual(t, reader.Told, 500)
			assert.Equal(t, uint64(reader.Told), srv.Stats().Dropped)
		})
	}
}
