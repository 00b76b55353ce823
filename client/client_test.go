package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

func serve(t *testing.T, prefix, method, path string, header http.Header) *http.Response {
	t.Helper()
	srv, err := pushy.New(pushy.Options{SecretKey: "the client's own secret", Prefix: prefix})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, srv.Close()) })
	r := httptest.NewRequest(method, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w.Result()
}

func TestServed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ prefix, path, file, contentType string }{
		{"", "/pushy/pushy.js", "pushy.js", "text/javascript; charset=utf-8"},
		{"", "/pushy/more.js", "more.js", "text/javascript; charset=utf-8"},
		{"", "/pushy/pushy.mjs", "pushy.mjs", "text/javascript; charset=utf-8"},
		{"", "/pushy/pushy.d.ts", "pushy.d.ts", "text/plain; charset=utf-8"},
		{"/rt", "/rt/pushy.js", "pushy.js", "text/javascript; charset=utf-8"},
		{"/", "/pushy.js", "pushy.js", "text/javascript; charset=utf-8"},
	} {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(tc.file)
			require.NoError(t, err)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				// Any page may load it: it is the same for all.
				got := serve(t, tc.prefix, method, tc.path, http.Header{"Origin": {"https://elsewhere.example"}})
				assert.Equal(t, http.StatusOK, got.StatusCode)
				assert.Equal(t, tc.contentType, got.Header.Get("Content-Type"))
				assert.Equal(t, "nosniff", got.Header.Get("X-Content-Type-Options"))
				assert.Equal(t, "no-cache", got.Header.Get("Cache-Control"))
				assert.Equal(t, int64(len(want)), got.ContentLength)
				body, err := io.ReadAll(got.Body)
				require.NoError(t, err)
				if method == http.MethodHead {
					assert.Empty(t, body)
				} else {
					assert.Equal(t, string(want), string(body))
				}

				etag := got.Header.Get("ETag")
				require.NotEmpty(t, etag)
				for sent, status := range map[string]int{etag: http.StatusNotModified, "W/" + etag: http.StatusNotModified, `"older"`: http.StatusOK} {
					again := serve(t, tc.prefix, method, tc.path, http.Header{"If-None-Match": {sent}})
					assert.Equal(t, status, again.StatusCode, sent)
					assert.Equal(t, etag, again.Header.Get("ETag"))
				}
			}
		})
	}
}

func TestNotServed(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		got := serve(t, "", method, "/pushy/pushy.js", nil)
		assert.Equal(t, http.StatusMethodNotAllowed, got.StatusCode, method)
		assert.Equal(t, "GET, HEAD", got.Header.Get("Allow"), method)
	}
	for _, path := range []string{
		"/pushy.js", "/pushy/", "/pushy/Pushy.js", "/pushy/pushy.js/", "/pushy/src/pushy.js", "/pushy/client.go",
		"/pushy//pushy.js", "/pushy/x/../pushy.js", "/pushy/pushy%2ejs", "/pushypushy.js", "/rt/pushy.js",
	} {
		got := serve(t, "", http.MethodGet, path, nil)
		assert.Equal(t, http.StatusNotFound, got.StatusCode, path)
	}
}
