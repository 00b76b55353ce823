package main

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"

	"github.com/gopushy/pushy"
)

// check returns the error of pushy.New for the options, so that the rules for them are
// only in package pushy. The error names the config's keys.
func check(o pushy.Options) error {
	if o.SecretKey == "" {
		o.SecretKey = "long enough for no warning"
	}
	o.Logger = slog.New(slog.DiscardHandler)
	srv, err := pushy.New(o)
	if err != nil {
		return errors.New(optionsToKeys(err.Error()))
	}
	_ = srv.Close()
	return nil
}

var optionName = regexp.MustCompile(`\b(?:pushy: )?(?:Options\.(Limits\.|SockJS\.)?|(Limits\.))([A-Z][A-Za-z]*)`)

// keysOfOptions has the keys whose names cannot be derived from the field's name. "" means
// that there is no key.
var keysOfOptions = map[string]string{
	"Accept":                 "",
	"AllowOrigin":            "",
	"DisableTrigger":         "",
	"Address":                "trustedProxies",
	"Heartbeat":              "sockjs.heartbeat_delay",
	"Channel":                "channels",
	"MaxBuffered":            "limits.maxBuffered",
	"MaxKept":                "limits.maxKept",
	"Limits.Memory":          "limits.maxMemory",
	"SockJS.DisconnectDelay": "sockjs.disconnect_delay",
	"SockJS.ResponseLimit":   "sockjs.response_limit",
	"SockJS.JSessionID":      "sockjs.jsessionid",
	"SockJS.ScriptURL":       "sockjs.sockjs_url",
}

// optionsToKeys replaces the fields of pushy.Options in a message by their keys. Fields
// without a key remain.
func optionsToKeys(message string) string {
	return optionName.ReplaceAllStringFunc(message, func(name string) string {
		parts := optionName.FindStringSubmatch(name)
		path, field := parts[1]+parts[2], parts[3]
		key, ok := keysOfOptions[path+field]
		switch {
		case !ok:
			return strings.ToLower(path) + keyOf(field)
		case key == "":
			return name
		}
		return key
	})
}
