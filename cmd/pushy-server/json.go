package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// member is a key of a JSON object and its value, each with its offset in the file.
type member struct {
	key     string
	keyAt   int
	value   json.RawMessage
	valueAt int
}

// fault is an error at an offset of a file.
type fault struct {
	at   int
	text string
}

func (f *fault) Error() string { return f.text }

// checkSyntax returns a *fault unless text is one JSON value.
func checkSyntax(text []byte) error {
	for at, r := range string(text) {
		if r == utf8.RuneError && text[at] != "\uFFFD"[0] {
			return &fault{at, "not UTF-8"}
		}
	}
	var value json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, &value); !errors.As(err, &syntax) {
		return err
	}
	at := max(0, int(syntax.Offset)-1)
	switch {
	case at >= len(text) || strings.Contains(syntax.Error(), "unexpected end"):
		return &fault{len(text), "the JSON is not finished"}
	case text[at] == '/' || text[at] == '#':
		return &fault{at, "not JSON from here on: comments are not allowed"}
	}
	return &fault{at, "not JSON from here on"}
}

// members returns the members of an object, in order. object is valid JSON and begins at
// the offset at. The error is a *fault if it is not an object or has a duplicate key,
// because it would be a guess which of the two is meant.
func members(object json.RawMessage, at int) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, &fault{at, "must be an object"}
	}
	var all []member
	seen := map[string]bool{}
	for d.More() {
		var m member
		m.keyAt = at + skip(object, int(d.InputOffset()), ", \t\r\n")
		token, err := d.Token()
		if err != nil {
			return nil, &fault{m.keyAt, err.Error()}
		}
		m.key, _ = token.(string)
		m.valueAt = at + skip(object, int(d.InputOffset()), ": \t\r\n")
		if err := d.Decode(&m.value); err != nil {
			return nil, &fault{m.valueAt, err.Error()}
		}
		if seen[m.key] {
			return nil, &fault{m.keyAt, fmt.Sprintf("%s is given twice", shown(m.key))}
		}
		seen[m.key] = true
		all = append(all, m)
	}
	return all, nil
}

// element is an element of a JSON array, with its offset in the file.
type element struct {
	value json.RawMessage
	at    int
}

// elements returns the elements of an array. array is valid JSON and begins at the offset at.
// It returns an error if it is not an array.
func elements(array json.RawMessage, at int) ([]element, error) {
	d := json.NewDecoder(bytes.NewReader(array))
	if token, err := d.Token(); err != nil || token != json.Delim('[') {
		return nil, errors.New("not an array")
	}
	var all []element
	for d.More() {
		e := element{at: at + skip(array, int(d.InputOffset()), ", \t\r\n")}
		if err := d.Decode(&e.value); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// skip returns the first offset, beginning with at, whose byte is not in among.
func skip(text []byte, at int, among string) int {
	for at < len(text) && strings.IndexByte(among, text[at]) >= 0 {
		at++
	}
	return at
}

// shown returns a key as messages show it: quoted if it could be misread, and shortened
// if it is long.
func shown(key string) string {
	if runes := []rune(key); len(runes) > 40 {
		key = string(runes[:40]) + "…"
	}
	for _, c := range key {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && !strings.ContainsRune(".[]", c) {
			return fmt.Sprintf("%q", key)
		}
	}
	if key == "" {
		return `""`
	}
	return key
}

// position returns an offset as line and column. Both begin with 1; the column counts
// characters.
func position(text []byte, at int) string {
	before := text[:min(at, len(text))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("%d:%d", line, column)
}
