package pushy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type request struct {
	Method, Path string
	Headers      map[string]string
	Body         *string
	BodyBase64   string `json:"body_base64"`
	BodyNote     string
}

type response struct {
	Status  int // 0: there was none
	Headers map[string]string
	Body    string
}

// exchange sends a request as it was recorded, which net/http's client would
// not always do, and checks the answer.
func (p *play) exchange(i int, rq request, want reply) {
	body, err := goldenBody(rq.Body, rq.BodyBase64)
	require.NoError(p.t, err)
	if rq.BodyNote != "" {
		require.Equal(p.t, "JSON object with one 20 MiB string", rq.BodyNote)
		body = []byte(`{"a":"` + strings.Repeat("x", 20<<20) + `"}`)
	}
	if n, ok := rq.Headers["Content-Length"]; ok {
		require.Equal(p.t, n, strconv.Itoa(len(body)), "step %d", i)
	}
	got := roundTrip(p.t, p.baseURL, rq.Method, p.fill(rq.Path), rq.Headers, body)
	got.body = p.asOff(got.body)
	if difference := want.differs(got); difference != "" {
		require.FailNow(p.t, "wrong answer", "step %d, %s %s: %s\n got %+v\nwant %+v", i, rq.Method, rq.Path, difference, got, want)
	}
}

// reply is what counts of an HTTP answer. In what is wanted an error's message
// may end in "…", where the wording is the server's own.
type reply struct {
	status            int
	contentType, body string
}

func (want reply) differs(got reply) string {
	switch {
	case got.status != want.status:
		return "status"
	case got.contentType != want.contentType:
		return "Content-Type"
	}
	wantBody, gotBody := canon(want.body), canon(got.body)
	before, after, open := strings.Cut(wantBody, `\u2026`)
	switch {
	case !open && gotBody == wantBody:
	case open && len(gotBody) > len(before+after) && strings.HasPrefix(gotBody, before) && strings.HasSuffix(gotBody, after):
	default:
		return "body"
	}
	return ""
}

// roundTrip writes a request byte by byte and reads the answer.
func roundTrip(t *testing.T, baseURL, method, target string, headers map[string]string, body []byte) reply {
	t.Helper()
	host := strings.TrimPrefix(baseURL, "http://")
	conn, err := net.Dial("tcp", host)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(clientPatience)))
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for name, value := range headers {
		if name != "Host" {
			fmt.Fprintf(&head, "%s: %s\r\n", name, value)
		}
	}
	if _, given := headers["Content-Length"]; !given && len(body) > 0 {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		// The server may answer before it has read all.
		_, _ = conn.Write(append([]byte(head.String()+"\r\n"), body...))
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err, "%s %s", method, target)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	_ = conn.Close()
	<-written
	return reply{answer.StatusCode, answer.Header.Get("Content-Type"), string(text)}
}
