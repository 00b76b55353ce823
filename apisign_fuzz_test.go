package pushy_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// hasValidSignature is what PROTOCOL.md says of a signature, computed without the packages of the
// server. now is in Unix seconds.
func hasValidSignature(key, header, path string, body []byte, now int64) bool {
	parts := strings.Split(header, " ")
	if len(parts) != 5 || parts[0] != "v2" {
		return false
	}
	at, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || at < now-300 || at > now+300 {
		return false
	}
	text := strings.Join([]string{"pushy2-request", parts[1], parts[2], parts[3], path, string(body)}, "\n")
	return parts[1] == ownSumWith(key, "pushy2-key-id")[:8] && parts[4] == ownSumWith(key, text)
}

// Whatever the path, the header and the body are, the server answers without a panic, and no
// request is carried out that has no valid signature. signed makes the signature of the request
// valid, so that the bodies are read, too.
func FuzzSignedRequest(f *testing.F) {
	srv, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Logger:    slog.New(slog.DiscardHandler),
		Channel:   func(string) pushy.ChannelOptions { return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}} },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = srv.Close() })
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	sign := func(id, path string, body []byte) string {
		text := strings.Join([]string{"pushy2-request", kid, strconv.Itoa(triggerNow), id, path, string(body)}, "\n")
		return "v2 " + kid + " " + strconv.Itoa(triggerNow) + " " + id + " " + ownSumWith(peerKey, text)
	}
	valid := sign("id-1", "/api/publish", []byte(helloBody))
	for _, call := range []struct{ name, body string }{
		{"publish", helloBody},
		{"publish", `{"events":[{"channels":["a","b"],"event":"e","data":"\u0000","except":["c"],"id":"i"}],"count":true}`},
		{"publish", `{"events":[{"channels":["a"],"event":"e","latest":"l","droppable":true}]}`},
		{"publish", `{"events":[{"channels":["` + strings.Repeat(`a","`, 100) + `"],"event":"e"}]}`},
		{"channels", `{"prefix":"private-","after":"a","limit":1,"count":true}`},
		{"members", `{"channel":"private-room","after":"x","limit":1000}`},
		{"connections", `{"user":"42"}`},
		{"connections", `{"conn":"1","channel":"a"}`},
		{"history", `{"channel":"chat","after":979,"limit":50}`},
		{"history", `{"channel":"chat","before":18446744073709551615}`},
		{"position", `{"channel":"chat"}`},
		{"kick", `{"target":"user:42","reason":"Spam","until":1700086400}`},
		{"kick", `{"target":"channel:Room"}`},
		{"unban", `{"target":"user:42"}`},
		{"bans", ``},
		{"send", `{"user":"42","event":"order","data":{"state":"paid"}}`},
		{"nothing", `{}`},
		{"../channel/room/trigger", "x"},
	} {
		f.Add(call.name, "", []byte(call.body), true)
		f.Add(call.name, sign("id-2", "/api/"+call.name, []byte(call.body)), []byte(call.body), false)
	}
	for _, header := range []string{
		"", "v2", "v2 ", "v1 a b c d", valid + " ", " " + valid, strings.ToUpper(valid), valid + "\n", valid + "," + valid,
		strings.Replace(valid, " ", "  ", 1), strings.Replace(valid, " ", "\t", 1), strings.Replace(valid, "id-1", "", 1),
		strings.Replace(valid, strconv.Itoa(triggerNow), "9223372036854775807", 1),
		strings.Replace(valid, strconv.Itoa(triggerNow), "+"+strconv.Itoa(triggerNow), 1),
		strings.Replace(valid, strconv.Itoa(triggerNow), "0"+strconv.Itoa(triggerNow), 1),
	} {
		f.Add("publish", header, []byte(helloBody), false)
	}
	f.Fuzz(func(t *testing.T, call, header string, body []byte, signed bool) {
		path := "/api/" + call
		if signed {
			// The same body has the same id, so that the id memory does not become full.
			header = sign(ownSum(path + string(body))[:16], path, body)
		}
		r := &http.Request{
			Method:        http.MethodPost,
			URL:           &url.URL{Path: "/pushy" + path},
			Header:        http.Header{"Content-Type": {"application/json"}, "Pushy-Signature": {header}},
			Body:          http.NoBody,
			ContentLength: int64(len(body)),
			RemoteAddr:    "192.0.2.1:1234",
			Host:          "example.com",
		}
		r = r.WithContext(t.Context())
		if len(body) > 0 {
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		if w.Code == http.StatusOK && !hasValidSignature(peerKey, header, path, body, triggerNow) {
			t.Errorf("%q is carried out without a valid signature: %s", path, w.Body)
		}
		if signed && (w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden) {
			t.Errorf("a valid signature is refused: %s", w.Body)
		}
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%q, %q: %s", path, body, w.Body)
		}
	})
}
