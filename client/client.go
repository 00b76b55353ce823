// Package client contains the built files of the browser client and serves them, so that
// pages can load the client from the server itself, and running pushy does not need node.
// The sources are in src.
package client

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
)

//go:embed pushy.js more.js pushy.mjs pushy.d.ts
var files embed.FS

type file struct {
	content     []byte
	contentType string
	etag        string
}

// served has the files by the part of the path that follows the prefix.
var served = map[string]file{
	"/pushy.js":   load("pushy.js", "text/javascript"),
	"/more.js":    load("more.js", "text/javascript"),
	"/pushy.mjs":  load("pushy.mjs", "text/javascript"),
	"/pushy.d.ts": load("pushy.d.ts", "text/plain"),
}

func load(name, mediaType string) file {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(content)
	return file{
		content:     content,
		contentType: mime.FormatMediaType(mediaType, map[string]string{"charset": "utf-8"}),
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
}

// Serve answers a request for one of the files, such as "/pushy.js", and reports whether
// there is a file with that name. Browsers cache the file and revalidate it each time.
// Pages of all origins can load it.
func Serve(w http.ResponseWriter, r *http.Request, name string) bool {
	f, ok := served[name]
	if !ok {
		return false
	}
	head := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		httperror.Write(w, http.StatusMethodNotAllowed, "method not allowed: GET "+name)
		return true
	}
	head.Set("Content-Type", f.contentType)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-cache")
	head.Set("ETag", f.etag)
	head.Set("Access-Control-Allow-Origin", "*") // modules of other origins need it
	// Pages with a Cross-Origin-Embedder-Policy need this.
	head.Set("Cross-Origin-Resource-Policy", "cross-origin")
	http.ServeContent(w, r, path.Base(name), time.Time{}, bytes.NewReader(f.content))
	return true
}
