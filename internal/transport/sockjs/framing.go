package sockjs

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/transport"
)

// framing describes how a receiving transport writes SockJS frames.
type framing struct {
	protocol    string // the transport's name in pushy:connect
	method      string
	contentType string
	streaming   bool   // a response has many frames, up to Config.ResponseLimit
	legacy      bool   // only for old browsers
	callback    bool   // the query has the name of a function of the page, which replaces %s below
	quoted      bool   // a frame is a string in a script
	decoded     bool   // clients apply unescape or decodeURI to each frame
	prelude     string // at the start of a streaming response
	before      string // before each frame
	after       string // after each frame
}

// receivers has the transports by the last part of their URL.
var receivers = map[string]*framing{
	"xhr": {
		protocol:    "xhr-polling",
		method:      http.MethodPost,
		contentType: "application/javascript; charset=UTF-8",
		after:       "\n",
	},
	"xhr_streaming": {
		protocol:    "xhr-streaming",
		method:      http.MethodPost,
		streaming:   true,
		contentType: "application/javascript; charset=UTF-8",
		// Some browsers do not notify a page before they have received this number of bytes.
		prelude: strings.Repeat("h", 2048) + "\n",
		after:   "\n",
	},
	"eventsource": {
		protocol:  "eventsource",
		method:    http.MethodGet,
		streaming: true,
		decoded:   true,
		// This type is always UTF-8, so there is no charset parameter.
		contentType: "text/event-stream",
		prelude:     "\r\n",
		before:      "data: ",
		after:       "\r\n\r\n",
	},
	"htmlfile": {
		protocol:    "htmlfile",
		method:      http.MethodGet,
		streaming:   true,
		legacy:      true,
		callback:    true,
		quoted:      true,
		contentType: "text/html; charset=UTF-8",
		// Some browsers do not parse a page before they have received this number of bytes.
		prelude: htmlfileHead + strings.Repeat(" ", 1025-len(htmlfileHead)) + "\r\n\r\n",
		before:  "<script>\np(",
		after:   ");\n</script>\r\n",
	},
	"jsonp": {
		protocol:    "jsonp-polling",
		method:      http.MethodGet,
		legacy:      true,
		callback:    true,
		quoted:      true,
		contentType: "application/javascript; charset=UTF-8",
		// The comment prevents clients from choosing the first bytes of the response, which
		// would let them make a response that another program accepts as a file.
		before: "/**/%s(",
		after:  ");\r\n",
	},
}

const htmlfileHead = `<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.%s;
    c.start();
    function p(d) {c.message(d);};
    window.onload = function() {c.stop();};
  </script>`

var (
	callbackName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

	noCallback = &transport.Refusal{
		Status: http.StatusBadRequest,
		Text:   `"callback" parameter required`,
		Plain:  true,
	}
	badCallback = &transport.Refusal{
		Status: http.StatusBadRequest,
		Text:   `invalid "callback" parameter`,
		Plain:  true,
	}
)

// forRequest returns the framing with the callback of r.
func (f framing) forRequest(r *http.Request) (framing, *transport.Refusal) {
	if !f.callback {
		return f, nil
	}
	name := r.URL.Query().Get("c")
	switch {
	case name == "":
		return f, noCallback
	case !callbackName.MatchString(name):
		return f, badCallback
	}
	f.prelude = strings.Replace(f.prelude, "%s", name, 1)
	f.before = strings.Replace(f.before, "%s", name, 1)
	return f, nil
}

// appendScriptText appends s as a JavaScript string that cannot end a script element.
func appendScriptText(dst []byte, s string) []byte {
	from := len(dst)
	dst = jsvalue.AppendQuote(dst, []byte(s))
	if text := string(dst[from:]); strings.Contains(text, "<") {
		dst = append(dst[:from], strings.ReplaceAll(text, "<", `\u003c`)...)
	}
	return dst
}
