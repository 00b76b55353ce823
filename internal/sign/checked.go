package sign

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// The functions in this file validate the parts of a signed string, so that the string is
// unambiguous: browsers choose connection ids and channel names, and must not be able to make
// a string in which one part can be mistaken for another.

// Token validates its arguments and signs a subscription to a channel. The policy of a Server
// decides which channels need a token. data is JSON, or nil for none; it is signed in
// canonical form.
func Token(secret, connID, channel string, data []byte) (string, error) {
	lower, err := names.Channel(channel)
	switch {
	case secret == "":
		return "", errors.New("empty secret key")
	case !names.IsUUID(connID):
		return "", errors.New("the connection id is not a UUID v4")
	case err != nil:
		return "", fmt.Errorf("channel name %w", err)
	}
	if data != nil {
		if data, err = jsvalue.Canonical(nil, data, jsvalue.TriggerLimits); err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
	}
	return Channel(secret, connID, lower, data), nil
}

// TokenValid reports whether auth is a token that was made with any of the keys. It accepts
// tokens for data as the client sent it, as JavaScript would write it, and as PHP's
// json_encode would write it by default. All these forms have the same value, so a token for
// one value is never valid for another.
func TokenValid(keys []string, auth, connID, channel string, data []byte) bool {
	forms := [][]byte{data}
	if data != nil {
		canonical, err := jsvalue.Canonical(nil, data, jsvalue.TriggerLimits)
		if err == nil {
			forms = append(forms, canonical, jsvalue.AppendPHP(nil, canonical))
			forms = slices.CompactFunc(forms, bytes.Equal)
		}
	}
	for _, key := range keys {
		for _, form := range forms {
			if Equal(auth, Channel(key, connID, channel, form)) {
				return true
			}
		}
	}
	return false
}

// TriggerKey validates its arguments and signs a trigger with a JSON body.
func TriggerKey(secret, channel, event string, timestamp int64, body []byte) (string, error) {
	lower, channelErr := names.Channel(channel)
	eventErr := names.Event(event)
	switch {
	case secret == "":
		return "", errors.New("empty secret key")
	case channelErr != nil:
		return "", fmt.Errorf("channel name %w", channelErr)
	case eventErr != nil:
		return "", fmt.Errorf("event name %w", eventErr)
	case timestamp < 0:
		return "", errors.New("negative timestamp")
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	return Trigger(secret, lower, event, strconv.FormatInt(timestamp, 10), body), nil
}
