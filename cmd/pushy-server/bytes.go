package main

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

var byteSize = regexp.MustCompile(`^([1-9][0-9]*)([kKmM]?)$`)

// parseBytes reads a number of bytes: 131072, "131072" or "128K".
func parseBytes(v json.RawMessage) (int64, bool) {
	text, unit := string(v), int64(1)
	if v[0] == '"' && !decode(v, &text) {
		return 0, false
	}
	parts := byteSize.FindStringSubmatch(text)
	if parts == nil {
		return 0, false
	}
	switch strings.ToUpper(parts[2]) {
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	}
	n, err := strconv.ParseInt(parts[1], 10, 32)
	return n * unit, err == nil
}
