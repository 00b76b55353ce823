package pushytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

func lower(channel string) string { return jsvalue.Lower(channel) }

// Subscribed is the data of pushy:subscription-success.
type Subscribed struct {
	Channel  string            `json:"channel"` // lower-cased
	MemberID string            `json:"memberId"`
	Presence []json.RawMessage `json:"presence"` // the members, including the client; nil without presence

	// For a client that is Recovering:
	Expires   int64  `json:"expires"`   // when the token expires, in Unix milliseconds, or 0; see ExpiresAt
	Resumed   bool   `json:"resumed"`   // the client is the member that it was before
	Epoch     string `json:"epoch"`     // of the channel, if it keeps events
	Offset    uint64 `json:"offset"`    // of the channel, after the replay
	Recovered bool   `json:"recovered"` // no event is missing
	Reason    string `json:"reason"`    // why some are missing, such as "expired"
	Replay    int    `json:"replay"`    // the number of events that follow
}

// RefusedError is a subscription that the Server refuses.
type RefusedError struct {
	Event  string // such as "pushy:subscription-failed"
	Reason string
	Code   string // of the *pushy.Error that the Authorizer returned, or ""
}

func (e *RefusedError) Error() string { return fmt.Sprintf("pushytest: %s %s", e.Event, e.Reason) }

// A Grant gets the token of a client for a private channel.
type Grant func(c *Client, channel string) (token any, err error)

// Member grants a token that the Server signs, with the given presence data or with none if
// data is nil, as if the app's auth endpoint had allowed it.
func Member(data any) Grant {
	return func(c *Client, channel string) (any, error) {
		allow := func(*http.Request, string, string) (any, error) { return data, nil }
		return Endpoint(c.kit.srv.AuthHandler(allow), "/")(c, channel)
	}
}

// Endpoint requests the token from the app's auth endpoint, which handler serves at path,
// with the cookies and headers with which the client connected, as a page does. edit can
// change the request.
func Endpoint(handler http.Handler, path string, edit ...func(r *http.Request)) Grant {
	return func(c *Client, channel string) (any, error) {
		form := url.Values{"channel": {channel}, "connection_id": {c.id}}
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
		r.Header = c.request.Header.Clone()
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, f := range edit {
			f(r)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			return nil, &RefusedError{
				Event:  "auth endpoint",
				Reason: fmt.Sprintf("%d: %s", w.Code, strings.TrimSpace(w.Body.String())),
			}
		}
		return json.RawMessage(w.Body.Bytes()), nil
	}
}

// Token grants the given token, and sends data with it.
func Token(auth string, data any) Grant {
	return func(*Client, string) (any, error) {
		return struct {
			Auth string `json:"auth"`
			Data any    `json:"data,omitempty"`
		}{auth, data}, nil
	}
}

// Subscribe joins a channel. A private one takes one Grant; without one it is
// Member(nil).
func (c *Client) Subscribe(channel string, grant ...Grant) Subscribed {
	c.kit.t.Helper()
	in, err := c.TrySubscribe(channel, grant...)
	if err != nil {
		c.fail("cannot subscribe to %s: %v", channel, err)
	}
	return in
}

// TrySubscribe is Subscribe for a subscription that may be refused: the error is a
// *RefusedError or, for example for a name that is not allowed, a *pushy.Error.
func (c *Client) TrySubscribe(channel string, grant ...Grant) (Subscribed, error) {
	c.kit.t.Helper()
	data := map[string]any{}
	c.recover(lower(channel), data)
	data["channel"] = channel
	private := names.Private(lower(channel)) || len(grant) > 0
	var e Event
	ok := true
	if !private {
		e, ok = c.ask("subscribe", data, commandID)
		private = ok && e.Event == needAuth // the Server's Options.Channel says so
	}
	if private {
		grant = append(grant, Member(nil))
		token, err := grant[0](c, channel)
		if err != nil {
			return Subscribed{}, err
		}
		raw, err := json.Marshal(token)
		if err == nil {
			err = json.Unmarshal(raw, &data)
		}
		if err != nil {
			c.fail("the token for %s is no object: %v", channel, err)
		}
		data["channel"] = channel
		e, ok = c.ask("subscribe", data, commandID)
	}
	var in Subscribed
	switch {
	case !ok:
		c.fail("subscribe to %s was not answered", channel)
	case e.Event == "pushy:subscription-success":
		c.decode(e.Data, &in)
		c.remember(in.Channel, grant)
	case e.Event == "pushy:error":
		return in, c.refusal(e)
	default:
		why := &RefusedError{Event: e.Event}
		c.decode(e.Data, why)
		return in, why
	}
	return in, nil
}

const needAuth = "pushy:subscription-needauth"

// Unsubscribe leaves a channel. The error is a *pushy.Error.
func (c *Client) Unsubscribe(channel string) error {
	c.kit.t.Helper()
	return c.Exec("unsubscribe", map[string]string{"channel": channel}, nil)
}
