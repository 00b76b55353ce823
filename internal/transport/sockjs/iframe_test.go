package sockjs_test

import (
	"html"
	"io"
	"net/http/httptest"
	"testing"

	igm "github.com/igm/sockjs-go/v3/sockjs"
	"github.com/stretchr/testify/assert"
)

// The iframe page is the one that sockjs-go serves, byte for byte, at the same paths.
func TestIframePageIsThatOfSockJSGo(t *testing.T) {
	t.Parallel()
	const script = `https://a.example/s.js?a="b"&c={{.}}<d>%s`
	s := serveSite(t, func(s *site) {
		s.cfg.Legacy = true
		s.cfg.ScriptURL = script
	})
	reference := igm.NewHandler("", igm.Options{SockJSURL: html.EscapeString(script)}, nil)
	statuses := map[int]int{}
	for _, path := range []string{
		"/iframe.html", "/iframe-.html", "/iframe-0.1.2.html", "/iframe-1.6.1-beta_2.html", "/iframe0.html",
		"/iframe..html", "/iframea.html.html", "/iframeA.html", "/iframe-1.0.0%20.html", "/iframe-%C3%A9.html",
		"/iframe-1%2C.html", "/iframe--A--.html",
	} {
		want := httptest.NewRecorder()
		reference.ServeHTTP(want, httptest.NewRequest("GET", path, nil))
		got := s.call("GET", path, "")
		assert.Equal(t, want.Code, got.status, path)
		statuses[got.status]++
		if want.Code != 200 {
			continue
		}
		body, err := io.ReadAll(want.Body)
		assert.NoError(t, err)
		assert.Equal(t, string(body), got.body, path)
		for _, name := range []string{"Content-Type", "Cache-Control", "Access-Control-Max-Age"} {
			assert.Equal(t, want.Header().Get(name), got.header.Get(name), "%s: %s", path, name)
		}
	}
	assert.Equal(t, map[int]int{200: 7, 404: 5}, statuses)
}

// A page that a browser has kept is loaded again if the host has chosen another script.
func TestIframePageOfAnotherScriptHasAnotherETag(t *testing.T) {
	t.Parallel()
	etag := func(script string) string {
		s := serveSite(t, func(s *site) {
			s.cfg.Legacy = true
			s.cfg.ScriptURL = script
		})
		return s.call("GET", "/iframe.html", "").header.Get("ETag")
	}
	assert.Equal(t, etag("/s.js"), etag("/s.js"))
	assert.NotEqual(t, etag("/s.js"), etag("/t.js"))
	assert.Regexp(t, `^"[0-9a-f]{16}"$`, etag("/s.js"))
}
