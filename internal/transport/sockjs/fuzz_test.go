package sockjs_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// FuzzXHRSend: a body is accepted completely or refused completely, and the messages are those
// that encoding/json reads in it.
func FuzzXHRSend(f *testing.F) {
	for _, seed := range []string{
		`["a"]`, `["a","b"]`, `[]`, `"x"`, `{"a":1}`, `null`, `["a",1,"b"]`, ` [ "a" , [1,"]"] , {"a":"}"} ] `, "",
		`["x`, `["a"]x`, `["\ud800","\ud83d\ude00"]`, "[\"\\\"\\\\\"]", `[1e5,-0.1,true,false,null]`, "\xff", `["` + "\xff" + `"]`, "[\"0\xe8\xb0\xc30\"]",
	} {
		f.Add(seed)
	}
	got := make(chan string, 1<<16)
	s := newSite(f, func(s *site) {
		s.cfg.MaxMessage = 1 << 12
		s.cfg.DisconnectDelay = 1 << 40
		s.onText = func(_ *siteConn, text string) { got <- text }
	})
	srv := httptest.NewServer(s)
	f.Cleanup(srv.Close)
	s.connect(srv.URL, &http.Transport{})
	p := s.open(carriers[0])
	host := s.session()
	f.Cleanup(func() {
		host.Abort()
		<-host.done
	})
	f.Fuzz(func(t *testing.T, body string) {
		res, err := http.Post(srv.URL+p.path("xhr_send"), "text/plain", strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		var value any
		// Invalid UTF-8 is read as JavaScript reads it; encoding/json replaces it with another
		// number of characters.
		wrong := json.Unmarshal(jsvalue.AppendValid(nil, []byte(body)), &value)
		switch {
		case len(body) > 1<<12:
			assert.Equal(t, 413, res.StatusCode)
			return
		case wrong != nil:
			assert.Equal(t, 500, res.StatusCode)
			return
		}
		assert.Equal(t, 204, res.StatusCode)
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, want := range list {
			text, _ := want.(string) // a value that is not a string is an empty message
			assert.Equal(t, text, <-got)
		}
		assert.Empty(t, got)
	})
}
