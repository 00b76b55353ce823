package pusher

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
)

// call is a request to the HTTP API whose signature is valid.
type call struct {
	request *http.Request
	params  map[string]string
	body    []byte
	name    string   // of the channel or the user in the path
	silent  []string // nodes that did not answer
}

// route is an endpoint of the HTTP API.
type route struct {
	method string
	run    func(a *Adapter, c *call) (answer any, refused *refused)
}

// routeOf returns the endpoint of a path after /apps/{id}/, and the name that the path has.
func routeOf(path string) (to route, name string, known bool) {
	parts := strings.Split(path, "/")
	if len(parts) > 1 {
		var err error
		if name, err = url.PathUnescape(parts[1]); err != nil {
			return to, "", false
		}
	}
	switch {
	case path == "events":
		to = route{http.MethodPost, (*Adapter).trigger}
	case path == "batch_events":
		to = route{http.MethodPost, (*Adapter).triggerBatch}
	case path == "channels":
		to = route{http.MethodGet, (*Adapter).listChannels}
	case len(parts) == 2 && parts[0] == "channels":
		to = route{http.MethodGet, (*Adapter).showChannel}
	case len(parts) == 3 && parts[0] == "channels" && parts[2] == "users":
		to = route{http.MethodGet, (*Adapter).listUsers}
	case len(parts) == 3 && parts[0] == "users" && parts[2] == "terminate_connections":
		to = route{http.MethodPost, (*Adapter).terminate}
	default:
		return to, "", false
	}
	return to, name, true
}

// serveAPI serves the HTTP API. path follows /apps/.
func (a *Adapter) serveAPI(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "no-store")
	c := &call{request: r}
	answer, refused := a.call(w, c, path)
	if len(c.silent) > 0 {
		w.Header().Set("Pushy-Silent", strings.Join(c.silent, ","))
	}
	if refused != nil {
		if refused.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((refused.retry+time.Second-1)/time.Second)))
		}
		if refused.status == http.StatusUnauthorized {
			a.parts.Notices.Warn("pusher: a request to the HTTP API was refused", "",
				slog.String("path", httperror.Shown(r.URL.Path)),
				slog.String("hint", "the answer says which string the server has signed"))
		}
		http.Error(w, refused.text, refused.status)
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // the answers have strings, numbers and valid JSON
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

func (a *Adapter) call(w http.ResponseWriter, c *call, path string) (answer any, why *refused) {
	app, rest, _ := strings.Cut(path, "/")
	to, name, known := routeOf(rest)
	switch {
	case app != a.app:
		return nil, refuseAPI(http.StatusNotFound, "there is no application with this id")
	case !known:
		return nil, refuseAPI(http.StatusNotFound, "there is no such endpoint")
	case c.request.Method != to.method:
		w.Header().Set("Allow", to.method)
		return nil, refuseAPI(http.StatusMethodNotAllowed, "the method must be %s", to.method)
	}
	c.name = name
	if c.params, why = parameters(c.request); why != nil {
		return nil, why
	}
	if c.body, why = a.readBody(w, c.request); why != nil {
		return nil, why
	}
	if why = a.verify(c.request, c.params, c.body); why != nil {
		return nil, why
	}
	return to.run(a, c)
}

func (a *Adapter) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refused) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, refuseAPI(http.StatusUnsupportedMediaType, "the Content-Encoding is not supported")
	}
	if r.Body == nil {
		return nil, nil
	}
	most := int64(cmp.Or(max(a.parts.TriggerBytes, 0), 1<<30))
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.parts.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, refuseAPI(http.StatusRequestEntityTooLarge, "the body has over %d bytes", most)
	case err != nil:
		return nil, refuseAPI(http.StatusRequestTimeout, "the body could not be read")
	}
	return body, nil
}

// unavailable is the refusal of a request that can be sent again.
func unavailable(text string) *refused {
	return &refused{
		status: http.StatusServiceUnavailable,
		text:   text,
		retry:  time.Second,
	}
}
