package streams_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starfederation/datastar-go/datastar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// elements is the function of docs/htmx.md.
func elements(html string) string {
	return "elements " + strings.NewReplacer("\r\n", "\nelements ", "\r", "\nelements ", "\n", "\nelements ").Replace(html)
}

// page is a page of Datastar 1.0 (bundle RC.5): it reads the stream, closes it while its tab is hidden, and reconnects
// after a response that was aborted.
type page struct {
	t      *testing.T
	url    string
	lastID string
	retry  time.Duration
	cancel context.CancelFunc
	ended  chan error // of the current response: nil after its end
	events chan patch
}

// patch is an event that Datastar acts on: the lines by their first words.
type patch struct {
	event string
	lines map[string][]string
}

func open(t *testing.T, url string) *page {
	p := &page{
		t:      t,
		url:    url,
		events: make(chan patch, 1000),
	}
	p.show()
	t.Cleanup(p.hide)
	return p
}

// show sends the request that Datastar sends, and waits for the first bytes of the answer.
func (p *page) show() {
	p.t.Helper()
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+`&datastar=%7B%22a%22%3A1%7D`, nil)
	require.NoError(p.t, err)
	r.Header.Set("Accept", "text/event-stream, text/html, application/json")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Datastar-Request", "true")
	if p.lastID != "" {
		r.Header.Set("last-event-id", p.lastID)
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusOK, res.StatusCode)
	p.ended = make(chan error, 1)
	go func() {
		defer func() { _ = res.Body.Close() }()
		p.ended <- p.read(bufio.NewReader(res.Body))
	}()
}

// hide ends the request.
func (p *page) hide() {
	p.cancel()
	<-p.ended
	p.ended <- nil // for the next call
}

// read reads as Datastar does: each line of the data is a word, a space, and a value.
func (p *page) read(in *bufio.Reader) error {
	var name string
	var data []string
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if strings.HasPrefix(name, "datastar") {
				e := patch{
					event: name,
					lines: map[string][]string{},
				}
				for _, line := range data {
					word, value, _ := strings.Cut(line, " ")
					e.lines[word] = append(e.lines[word], value)
				}
				p.events <- e
			}
			name, data = "", nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			data = append(data, value)
		case "id":
			p.lastID = value
		case "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			p.retry = time.Duration(ms) * time.Millisecond
		}
	}
}

func (p *page) next() patch {
	p.t.Helper()
	select {
	case e := <-p.events:
		return e
	case <-time.After(patience):
		require.Fail(p.t, "no event")
		return patch{}
	}
}

// Whatever Datastar's own package for Go writes, a host can publish, and the page receives the same lines.
func TestDatastarLines(t *testing.T) {
	t.Parallel()
	s := start(t, 100)
	p := open(t, s.url+"?names=datastar&channel=orders")
	modes := []datastar.ElementPatchMode{
		datastar.ElementPatchModeOuter,
		datastar.ElementPatchModeInner,
		datastar.ElementPatchModeRemove,
		datastar.ElementPatchModeReplace,
		datastar.ElementPatchModePrepend,
		datastar.ElementPatchModeAppend,
		datastar.ElementPatchModeBefore,
		datastar.ElementPatchModeAfter,
	}
	const html = "<tr id=\"o7\">\n  <td>packed</td>\n\n</tr>\n"
	var writes []func(sse *datastar.ServerSentEventGenerator) error
	var ours []string // what docs/htmx.md says how to publish it
	for _, mode := range modes {
		lines := "selector #orders > tr\n"
		if mode != datastar.ElementPatchModeOuter {
			lines += "mode " + string(mode) + "\n"
		}
		text := html
		if mode == datastar.ElementPatchModeRemove {
			text = ""
			lines = strings.TrimSuffix(lines, "\n")
		} else {
			lines += elements(html)
		}
		writes = append(writes, func(sse *datastar.ServerSentEventGenerator) error {
			return sse.PatchElements(text, datastar.WithSelector("#orders > tr"), datastar.WithMode(mode))
		})
		ours = append(ours, lines)
	}
	writes = append(writes,
		func(sse *datastar.ServerSentEventGenerator) error {
			return sse.PatchElements("<g id=\"x\"/>", datastar.WithNamespace(datastar.NamespaceSVG), datastar.WithUseViewTransitions(true))
		},
		func(sse *datastar.ServerSentEventGenerator) error {
			return sse.PatchSignals([]byte(`{"open": 3}`))
		},
		func(sse *datastar.ServerSentEventGenerator) error {
			return sse.PatchSignals([]byte("{\n\"open\": 3,\n\"kind\": \"all\"\n}"), datastar.WithOnlyIfMissing(true))
		},
	)
	ours = append(ours,
		"namespace svg\nuseViewTransition true\n"+elements(`<g id="x"/>`),
		`signals {"open": 3}`,
		"onlyIfMissing true\nsignals {\nsignals \"open\": 3,\nsignals \"kind\": \"all\"\nsignals }",
	)
	for i, write := range writes {
		recorder := httptest.NewRecorder()
		require.NoError(t, write(datastar.NewSSE(recorder, httptest.NewRequest(http.MethodGet, "/", nil))))
		written := lines(recorder.Body.String())
		require.Len(t, written, 1)
		assert.Equal(t, written[0].data, ours[i])
		s.publish("orders", written[0].name, ours[i])
		want := map[string][]string{}
		for line := range strings.SplitSeq(written[0].data, "\n") {
			word, value, _ := strings.Cut(line, " ")
			want[word] = append(want[word], value)
		}
		assert.Equal(t, patch{written[0].name, want}, p.next())
	}
}

// S4: a page that is hidden during 50 events receives all of them afterwards, and one that is away for
// longer than the channel keeps events receives one gap, as a signal.
func TestDatastarHides(t *testing.T) {
	t.Parallel()
	s := start(t, 60)
	p := open(t, s.url+"?names=datastar&channel=orders")
	row := func(i int) string {
		return "selector #orders\nmode append\n" + elements(fmt.Sprintf("<tr>\n<td>%d</td></tr>", i))
	}
	receives := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			e := p.next()
			require.Equal(t, []string{"<tr>", fmt.Sprintf("<td>%d</td></tr>", i)}, e.lines["elements"])
		}
	}
	s.publish("orders", "datastar-patch-elements", row(0))
	receives(0, 0)
	p.hide()
	for i := 1; i <= 50; i++ {
		s.publish("orders", "datastar-patch-elements", row(i))
	}
	p.show()
	receives(1, 50)
	p.hide()
	for i := 51; i <= 120; i++ {
		s.publish("orders", "datastar-patch-elements", row(i))
	}
	p.show()
	e := p.next()
	assert.Equal(t, "datastar-patch-signals", e.event)
	var signals struct {
		Pushy struct {
			Gap struct {
				Channel string
				Reason  string
			}
		} `json:"_pushy"`
	}
	require.NoError(t, json.Unmarshal([]byte(e.lines["signals"][0]), &signals))
	assert.Equal(t, "orders", signals.Pushy.Gap.Channel)
	assert.Equal(t, "trimmed", signals.Pushy.Gap.Reason)
	s.publish("orders", "datastar-patch-elements", row(121))
	receives(121, 121)
}

// S5: a deploy aborts the response, because Datastar does not reconnect after its end, and says when to return.
func TestDatastarOverADeploy(t *testing.T) {
	t.Parallel()
	s := start(t, 60)
	p := open(t, s.url+"?names=datastar&channel=orders")
	s.publish("orders", "datastar-patch-elements", elements("<p>1</p>"))
	p.next()
	s.deploy(60)
	select {
	case err := <-p.ended:
		require.Error(t, err, "the response is complete")
	case <-time.After(patience):
		require.Fail(t, "the response does not end")
	}
	assert.GreaterOrEqual(t, p.retry, 1500*time.Millisecond)
	assert.LessOrEqual(t, p.retry, 7*time.Second)
	s.publish("orders", "datastar-patch-elements", elements("<p>2</p>"))
	p.show()
	assert.Equal(t, []string{"<p>2</p>"}, p.next().lines["elements"])
}
