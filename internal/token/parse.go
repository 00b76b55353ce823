package token

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// The claims, as bits, so that a duplicate is found.
var claimNames = map[string]uint8{
	"sub":  1 << 0,
	"conn": 1 << 1,
	"user": 1 << 2,
	"iat":  1 << 3,
	"exp":  1 << 4,
	"data": 1 << 5,
	"pub":  1 << 6,
}

// parse decodes claims. Claims that it does not know are an error: they could restrict what the
// token is for. The claims of one token are decoded by hand because thousands of clients can
// return at the same time.
func parse(payload []byte) (c Claims, err error) {
	if !utf8.Valid(payload) {
		return c, errors.New("must be UTF-8")
	}
	var seen uint8
	malformed := jsvalue.Fields(payload, func(name, value []byte) {
		if err != nil {
			return
		}
		claim, known := claimNames[string(name)]
		switch {
		case !known:
			err = fmt.Errorf("unknown claim %.40q", name)
			return
		case seen&claim != 0:
			err = fmt.Errorf("%s: occurs twice", name)
			return
		}
		seen |= claim
		if invalid := c.set(string(name), value); invalid != nil {
			err = fmt.Errorf("%s: %w", name, invalid)
		}
	})
	switch {
	case malformed != nil:
		return c, errors.New("must be one JSON object")
	case err != nil:
		return c, err
	case seen&claimNames["sub"] == 0:
		return c, errors.New("sub: is missing")
	case seen&claimNames["iat"] == 0:
		return c, errors.New("iat: is missing")
	}
	return c, nil
}

func (c *Claims) set(name string, value []byte) (err error) {
	switch name {
	case "sub":
		c.Channels, err = parseTexts(value)
	case "conn":
		c.Conn, err = parseText(value)
	case "user":
		c.User, err = parseText(value)
	case "iat":
		c.Issued, err = parseTime(value)
	case "exp":
		c.Expires, err = parseTime(value)
	case "data":
		if string(value) != "null" { // as json_encode writes data that is not there
			c.Data, err = jsvalue.Canonical(nil, value, jsvalue.TriggerLimits)
		}
	case "pub":
		switch string(value) {
		case "true", "false":
			c.Publish = string(value) == "true"
		default:
			err = wrongType("true or false", value)
		}
	}
	return err
}

func wrongType(want string, value []byte) error {
	return fmt.Errorf("must be %s, not %s", want, jsvalue.KindName(jsvalue.Kind(value)))
}

// parseText parses a string that is not empty.
func parseText(value []byte) (string, error) {
	s, ok := jsvalue.Text(value)
	switch {
	case !ok:
		return "", wrongType("a string", value)
	case s == "":
		return "", errors.New("must not be empty")
	}
	return s, nil
}

// maxTime is the largest number of seconds that a JavaScript number represents exactly.
const maxTime = 1<<53 - 1

// parseTime parses a whole number of seconds.
func parseTime(value []byte) (time.Time, error) {
	if jsvalue.Kind(value) != '0' {
		return time.Time{}, wrongType("a number", value)
	}
	seconds, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || seconds < 0 || seconds > maxTime || string(value) == "-0" {
		return time.Time{}, errors.New("must be a whole number of seconds since 1970")
	}
	return time.Unix(seconds, 0), nil
}

// parseTexts parses an array of strings. value is valid JSON.
func parseTexts(value []byte) (all []string, err error) {
	if jsvalue.Kind(value) != '[' {
		return nil, wrongType("an array", value)
	}
	const blanks = " \t\r\n"
	rest := bytes.TrimLeft(value[1:len(value)-1], blanks)
	for len(rest) > 0 {
		if rest[0] != '"' {
			return nil, fmt.Errorf("[%d] %w", len(all), wrongType("a string", rest))
		}
		end := 1
		for rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		s, _ := jsvalue.Text(rest[:end+1])
		all = append(all, s)
		rest = bytes.TrimLeft(rest[end+1:], blanks+",")
	}
	return all, nil
}
