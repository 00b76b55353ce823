// Package compress compresses WebSocket messages for package deflate. Only what needs a compressor
// imports it, because it brings a dependency.
package compress

import "github.com/klauspost/compress/flate"

// tail is the end of what a compressor writes when it is flushed, which messages do not have
// (RFC 7692, section 7.2.1).
const tail = "\x00\x00\xff\xff"

// Append appends the compressed payload of a message to dst. payload must not be empty. Nothing is
// kept between two calls.
func Append(dst, payload []byte) []byte {
	b := appender(dst)
	_ = flate.StatelessDeflate(&b, payload, false, nil) // the only error is that of the Writer
	return b[:len(b)-len(tail)]
}

type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
