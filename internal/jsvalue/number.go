package jsvalue

import (
	"bytes"
	"math"
	"strconv"
)

// infinite reports whether the JSON number num is infinite as a double. It parses the number,
// which allocates, only if the number of digits does not decide.
func infinite(num []byte) bool {
	if len(num) < 309 && bytes.IndexByte(num, 'e') < 0 && bytes.IndexByte(num, 'E') < 0 {
		return false
	}
	m := magnitude(num)
	switch {
	case m <= 308:
		return false
	case m > 309:
		return true
	}
	f, _ := strconv.ParseFloat(string(num), 64)
	return math.IsInf(f, 0)
}

// magnitude returns the m for which |num| is in [10^(m-1), 10^m), or the smallest int if num
// is zero.
func magnitude(num []byte) int {
	m := 0
	i := 0
	point := false // the decimal point was read
	seen := false  // a digit other than a leading zero was read
	for ; i < len(num) && num[i]|0x20 != 'e'; i++ {
		c := num[i]
		switch {
		case c == '.':
			point = true
		case c == '-':
		case c != '0' || seen:
			seen = true
			if !point {
				m++
			}
		case point:
			m--
		}
	}
	if !seen {
		return math.MinInt
	}
	if i == len(num) {
		return m
	}
	exp, err := strconv.Atoi(string(num[i+1:]))
	if err != nil || exp > math.MaxInt/2 || exp < math.MinInt/2 {
		// The exponent is so large that the digits cannot compensate for it.
		if num[i+1] == '-' {
			return math.MinInt
		}
		return math.MaxInt
	}
	return m + exp
}

// appendNumber appends the JSON number num in the form in which JavaScript prints the double.
func appendNumber(dst, num []byte) []byte {
	if isPlainInteger(num) {
		return append(dst, num...)
	}
	f, _ := strconv.ParseFloat(string(num), 64)
	abs := math.Abs(f)
	switch {
	case math.IsInf(f, 0):
		return append(dst, "null"...)
	case f == 0:
		return append(dst, '0') // also for -0
	case abs >= 1e-6 && abs < 1e21:
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	// Go writes at least two digits of the exponent: e-07.
	if n := len(dst); dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// isPlainInteger reports whether JavaScript prints num without changes: an integer of up to 15
// bytes, which is exact as a double, and not -0.
func isPlainInteger(num []byte) bool {
	if len(num) > 15 {
		return false
	}
	for i, c := range num {
		if c-'0' > 9 && (i > 0 || c != '-') {
			return false
		}
	}
	return num[0] != '-' || num[1] != '0'
}
