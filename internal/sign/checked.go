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

// What is signed here parses in one way only: browsers choose connection ids and
// channel names, and must not be able to make one part pass for another.

// Token signs a subscription to a channel, after checking its parts. Which channels
// need one is a Server's policy.
// data is JSON, nil for none; it is signed in canonical form.
func Token(secret, connID, channel string, data []byte) (string, error) {
	lower, err := names.Channel(channel)
	switch {
	case secret == "":
		return "", errors.New("empty secret key")
	case !names.IsUUID(connID):
		return "", errors.New("the connection id is no UUID v4")
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

// TokenHolds reports whether auth is the token, made with any of the keys, for
// data as the client sent it, as JavaScript would write it, or as PHP's json_encode
// would by default. Each of these texts means the same value, so a token for one
// value cannot be one for another.
func TokenHolds(keys []string, auth, connID, channel string, data []byte) bool {
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

// TriggerKey signs a trigger with a JSON body, after checking its parts.
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
