package pushy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

const drainOfOne = `{"event":"pushy:drain","data":{"returnIn":0}}`

// A WebSocket receives pushy:drain before its close frame: 1012, or 3001 in SockJS frames.
func TestDrainOverWebSockets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		framed bool
		path   string
		last   []string // before the close
		code   int
	}{
		"bare":                   {path: "/pushy/socket/websocket?v=2", last: []string{drainOfOne}, code: 1012},
		"bare of version 1":      {path: "/pushy/socket/websocket", code: 1012},
		"frames":                 {framed: true, path: "/pushy/socket/0/a/websocket?v=2", last: []string{drainOfOne}, code: 3001},
		"frames of version 1":    {framed: true, path: "/pushy/socket/0/a/websocket", code: 3001},
		"bare of no such number": {path: "/pushy/socket/websocket?v=two", code: 1012},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, baseURL := serve(t, pushy.Options{})
			client := dial(t, baseURL, c.framed, withPath(c.path))
			ended := make(chan error, 1)
			go func() { ended <- srv.Shutdown(context.Background()) }()
			for _, want := range c.last {
				assert.Equal(t, want, client.Receive())
			}
			if c.framed {
				assert.Equal(t, `c[3001,"server shutting down"]`, client.Next())
			}
			code, reason := client.Closed()
			assert.Equal(t, c.code, code)
			assert.Equal(t, "server shutting down", reason)
			assert.NoError(t, <-ended)
		})
	}
}

// framesOver receives over a transport of SockJS, with one request after another, until the frame
// c. It closes connected when pushy:connect has arrived, and begins no further request until more
// is closed.
func framesOver(t *testing.T, baseURL, method, path string, connected chan<- struct{}, more <-chan struct{}) (messages []string, end string) {
	client := &http.Client{Timeout: clientPatience}
	greeted := false
	for {
		if greeted {
			<-more
		}
		r, err := http.NewRequestWithContext(t.Context(), method, baseURL+"/pushy/socket/0/drained/"+path, nil)
		if !assert.NoError(t, err) {
			return messages, ""
		}
		res, err := client.Do(r)
		if !assert.NoError(t, err) {
			return messages, ""
		}
		if !assert.Equal(t, http.StatusOK, res.StatusCode) {
			return messages, ""
		}
		for lines := bufio.NewReader(res.Body); ; {
			line, err := lines.ReadString('\n')
			frame := unwrapSockJS(strings.TrimSpace(line))
			switch {
			case strings.HasPrefix(frame, "a["):
				var some []string
				assert.NoError(t, json.Unmarshal([]byte(frame[1:]), &some), frame)
				messages = append(messages, some...)
				if !greeted {
					greeted = true
					close(connected)
				}
			case strings.HasPrefix(frame, "c["):
				_ = res.Body.Close()
				return messages, frame
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if !assert.NoError(t, err) {
				return messages, ""
			}
		}
		_ = res.Body.Close()
	}
}

// unwrapSockJS returns the frame in a line of a transport.
func unwrapSockJS(line string) string {
	for before, after := range map[string]string{"data: ": "", "p(": ");", "/**/x(": ");"} {
		inner, ok := strings.CutPrefix(line, before)
		if !ok {
			continue
		}
		if after == "" {
			return inner
		}
		var text string
		if json.Unmarshal([]byte(strings.TrimSuffix(inner, after)), &text) == nil {
			return text
		}
	}
	return line
}

// Over HTTP a client receives pushy:drain and then the close frame 3001, whether a request waits
// when the server shuts down or the client sends its next one then.
func TestDrainOverHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, path string }{
		{"POST", "xhr?v=2"},
		{"POST", "xhr_streaming?v=2"},
		{"GET", "eventsource?v=2"},
		{"GET", "htmlfile?v=2&c=x"},
		{"GET", "jsonp?v=2&c=x"},
		{"POST", "xhr"},
		{"POST", "xhr_streaming"},
	} {
		for _, when := range []string{"waits", "between"} {
			t.Run(c.path+"/"+when, func(t *testing.T) {
				t.Parallel()
				srv, baseURL := serve(t, pushy.Options{
					SockJS: pushy.SockJS{Legacy: true, DisconnectDelay: clientPatience},
				})
				connected, more := make(chan struct{}), make(chan struct{})
				if when == "waits" {
					close(more)
				}
				type result struct {
					messages []string
					end      string
				}
				got := make(chan result, 1)
				go func() {
					messages, end := framesOver(t, baseURL, c.method, c.path, connected, more)
					got <- result{messages, end}
				}()
				<-connected
				ended := make(chan error, 1)
				go func() { ended <- srv.Shutdown(context.Background()) }()
				if when == "between" {
					require.Eventually(t, func() bool {
						return errors.Is(srv.Publish(t.Context(), "news", "x", 1), pushy.ErrClosed)
					}, clientPatience, time.Millisecond)
					close(more)
				}
				r := <-got
				assert.Equal(t, `c[3001,"server shutting down"]`, r.end)
				require.NotEmpty(t, r.messages)
				assert.Contains(t, r.messages[0], `"event":"pushy:connect"`)
				if strings.Contains(c.path, "v=2") {
					assert.Equal(t, []string{drainOfOne}, r.messages[1:])
				} else {
					assert.Empty(t, r.messages[1:])
				}
				assert.NoError(t, <-ended)
			})
		}
	}
}
