package console

import (
	"embed"
	"net/http"
)

//go:embed page
var page embed.FS

// file is a file of the page.
type file struct {
	kind string
	text []byte
}

// files has the files by the last part of their path.
var files = map[string]*file{
	"":            newFile("index.html", "text/html; charset=utf-8"),
	"console.css": newFile("console.css", "text/css; charset=utf-8"),
	"console.js":  newFile("console.js", "text/javascript; charset=utf-8"),
	"acts.js":     newFile("acts.js", "text/javascript; charset=utf-8"),
	"detail.js":   newFile("detail.js", "text/javascript; charset=utf-8"),
	"ends.js":     newFile("ends.js", "text/javascript; charset=utf-8"),
	"net.js":      newFile("net.js", "text/javascript; charset=utf-8"),
	"show.js":     newFile("show.js", "text/javascript; charset=utf-8"),
	"watch.js":    newFile("watch.js", "text/javascript; charset=utf-8"),
	"table.js":    newFile("table.js", "text/javascript; charset=utf-8"),
}

func newFile(name, kind string) *file {
	text, err := page.ReadFile("page/" + name)
	if err != nil {
		panic("console: " + err.Error())
	}
	return &file{
		kind: kind,
		text: text,
	}
}

func (f *file) serve(w http.ResponseWriter, _ *http.Request, _ string) {
	w.Header().Set("Content-Type", f.kind)
	_, _ = w.Write(f.text)
}
