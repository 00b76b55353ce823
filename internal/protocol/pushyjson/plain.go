package pushyjson

import (
	"math"
	"strconv"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// Thousands of clients return at the same time after a failure of the network, so what they send
// is parsed without reflection if it has the form in which JSON.stringify writes it. These
// functions report false for everything else: another form, a value of another type, an unknown
// or duplicate field. The caller then uses a strictjson.Decoder, which also has the error.

// plainObject returns the values of up to three fields of a JSON object, nil for those that
// are missing.
func plainObject(value []byte, names ...string) (values [3][]byte, ok bool) {
	if jsvalue.Kind(value) != '{' {
		return values, false
	}
	ok = true
	err := jsvalue.Fields(value, func(field, value []byte) {
		for i, name := range names {
			if string(field) == name && values[i] == nil {
				values[i] = value
				return
			}
		}
		ok = false
	})
	return values, ok && err == nil
}

// plainText returns a string that has only printable ASCII characters and no escapes.
func plainText(value []byte) (s string, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	for _, b := range inner {
		if b < ' ' || b > '~' || b == '"' || b == '\\' {
			return "", false
		}
	}
	return string(inner), true
}

// plainNumber returns a number that has only digits, and not more than a safe integer.
func plainNumber(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 16 || len(value) > 1 && value[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	return n, err == nil && n >= 0
}

// plainTexts returns an array of plain strings without whitespace between them.
func plainTexts(value []byte) (all []string, ok bool) {
	if len(value) < 2 || value[0] != '[' || value[len(value)-1] != ']' {
		return nil, false
	}
	all = []string{}
	for rest := value[1:]; len(rest) > 1; {
		end := 1
		for end < len(rest) && rest[end] != '"' {
			end++
		}
		if end+1 >= len(rest) {
			return nil, false
		}
		s, ok := plainText(rest[:end+1])
		if !ok {
			return nil, false
		}
		all = append(all, s)
		rest = rest[end+1:]
		if rest[0] == ',' {
			rest = rest[1:]
		}
	}
	return all, true
}

func decodeBoolean(value []byte) (bool, error) {
	switch string(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return booleans.Decode(value)
}

// position is the value of since.
type position struct {
	Epoch  *string `json:"epoch"`
	Offset *int64  `json:"offset"`
}

func decodePosition(value []byte) (position, error) {
	fields, ok := plainObject(value, "epoch", "offset")
	if ok {
		epoch, isText := plainText(fields[0])
		offset, isNumber := plainNumber(fields[1])
		if isText && isNumber {
			return position{
				Epoch:  &epoch,
				Offset: &offset,
			}, nil
		}
	}
	return positions.Decode(value)
}

func decodeTexts(value []byte) ([]string, error) {
	if all, ok := plainTexts(value); ok {
		return all, nil
	}
	return texts.Decode(value)
}

// returning is the value of member.
type returning struct {
	ID  string `json:"id"`
	Key string `json:"key"`
}

func decodeReturning(value []byte) (returning, error) {
	fields, ok := plainObject(value, "id", "key")
	if ok {
		id, isID := plainText(fields[0])
		key, isKey := plainText(fields[1])
		if isID && isKey {
			return returning{
				ID:  id,
				Key: key,
			}, nil
		}
	}
	return returnings.Decode(value)
}

// presence is the value of presence, if it is an object.
type presence struct {
	Mode  string  `json:"mode"`
	Since *string `json:"since"`
	Limit *int    `json:"limit"`
}

func decodePresence(value []byte) (presence, error) {
	if p, ok := plainPresence(value); ok {
		return p, nil
	}
	return presences.Decode(value)
}

func plainPresence(value []byte) (p presence, ok bool) {
	fields, ok := plainObject(value, "mode", "since", "limit")
	if !ok {
		return p, false
	}
	if p.Mode, ok = plainText(fields[0]); !ok {
		return p, false
	}
	if fields[1] != nil {
		since, ok := plainText(fields[1])
		if !ok {
			return p, false
		}
		p.Since = &since
	}
	if fields[2] != nil {
		n, ok := plainNumber(fields[2])
		if !ok || n > math.MaxInt32 {
			return p, false
		}
		limit := int(n)
		p.Limit = &limit
	}
	return p, true
}
