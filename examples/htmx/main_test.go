package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serve runs the board until the test ends, and returns its origin and a function that stops it.
func serve(t *testing.T, data string) (origin string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", data, in) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "open "), "/"), func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

func body(t *testing.T, res *http.Response, err error) string {
	t.Helper()
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(text)
}

// A change is published as the row that a page shows, and is still there after a restart.
func TestBoard(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "orders.json")
	origin, stop := serve(t, data)
	res, err := http.Get(origin + "/")
	page := body(t, res, err)
	assert.Contains(t, page, `<tr id="order-3" class="new">`)
	_, rest, found := strings.Cut(page, `hx-sse:connect="`)
	require.True(t, found)
	connect, _, _ := strings.Cut(rest, `"`)
	connect = strings.ReplaceAll(connect, "&amp;", "&")
	assert.Regexp(t, `&since=[\w-]+\.0$`, connect)

	res, err = http.PostForm(origin+"/orders/3/next", nil)
	assert.Empty(t, body(t, res, err))
	assert.Equal(t, http.StatusNoContent, res.StatusCode)
	res, err = http.PostForm(origin+"/orders/9/next", nil)
	assert.Contains(t, body(t, res, err), "no such order")

	// The stream of the page, which was opened after the change.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, origin+connect, nil)
	require.NoError(t, err)
	res, err = http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	for in := bufio.NewScanner(res.Body); ; {
		require.True(t, in.Scan(), in.Err())
		if in.Text() == `data: <tr id="order-3" class="packed changed" hx-swap-oob="true">` {
			break
		}
	}
	stop()
	origin, stop = serve(t, data)
	defer stop()
	res, err = http.Get(origin + "/orders")
	assert.Contains(t, body(t, res, err), `<tr id="order-3" class="packed">`)
}
