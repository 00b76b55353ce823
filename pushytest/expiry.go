package pushytest

import (
	"encoding/json"
	"time"
)

// Refresh renews the subscription to a channel with another token, as the browser client does
// before the token expires, and returns the time at which the new one expires, or the zero
// Time if it does not. The error is a *pushy.Error, or that of the Grant.
func (c *Client) Refresh(channel string, grant Grant) (expires time.Time, err error) {
	c.kit.t.Helper()
	token, err := grant(c, channel)
	if err != nil {
		return time.Time{}, err
	}
	raw, err := json.Marshal(token)
	if err != nil {
		c.fail("cannot encode the token for %s: %v", channel, err)
	}
	var granted struct {
		Auth string          `json:"auth"`
		Data json.RawMessage `json:"data"`
	}
	c.decode(raw, &granted)
	data := map[string]any{
		"channel": channel,
		"auth":    granted.Auth,
	}
	if granted.Data != nil {
		data["data"] = granted.Data
	}
	var answer struct {
		Expires int64 `json:"expires"`
	}
	if err := c.Exec("pushy:refresh", data, &answer); err != nil {
		return time.Time{}, err
	}
	return unixMilli(answer.Expires), nil
}

func unixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// ExpiresAt returns the time at which the token of the subscription expires, or the zero Time if
// it does not, or if the client is not Recovering.
func (s Subscribed) ExpiresAt() time.Time { return unixMilli(s.Expires) }

// ExpectExpired waits for the end of the subscription to a channel whose token has expired,
// which comes 25 s after that. In a bubble of testing/synctest this takes no real time, if
// Kit.Patience is longer.
func (c *Client) ExpectExpired(channel string) {
	c.kit.t.Helper()
	channel = lower(channel)
	_, ok := c.take(func(e Event) bool {
		var end struct{ Channel, Reason string }
		return e.Event == "pushy:subscription-end" && json.Unmarshal(e.Data, &end) == nil &&
			end.Channel == channel && end.Reason == "Expired"
	})
	if !ok {
		c.fail("the subscription to %s does not expire", channel)
	}
}
