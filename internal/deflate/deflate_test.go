package deflate_test

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/deflate"
	"github.com/gopushy/pushy/internal/deflate/compress"
)

const both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

func TestNegotiate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		offers []string // header lines
		want   string
	}{
		{name: "none"},
		{name: "Firefox", offers: []string{"permessage-deflate"}, want: both},
		{name: "Chromium, and ws for node", offers: []string{"permessage-deflate; client_max_window_bits"}, want: both},
		{name: "name in any case", offers: []string{"Permessage-Deflate"}, want: both},
		{name: "both no_context_takeover", offers: []string{both}, want: both},
		{name: "no blanks", offers: []string{"permessage-deflate;client_max_window_bits=10"}, want: both},
		{name: "many blanks", offers: []string{" permessage-deflate\t ; client_max_window_bits = 10 "}, want: both},
		{name: "quoted value", offers: []string{`permessage-deflate; client_max_window_bits="8"`}, want: both},
		{name: "server's window of 32 KiB", offers: []string{"permessage-deflate; server_max_window_bits=15"}, want: both + "; server_max_window_bits=15"},
		{name: "server's window is smaller", offers: []string{"permessage-deflate; server_max_window_bits=14"}},
		{name: "server's window, or any", offers: []string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}, want: both},
		{name: "after another extension", offers: []string{"x-webkit-deflate-frame, permessage-deflate"}, want: both},
		{name: "another extension with quotes", offers: []string{`foo; a="x, permessage-deflate; \", b", bar`}},
		{name: "after quotes", offers: []string{`foo; a="x\",;", permessage-deflate`}, want: both},
		{name: "two lines", offers: []string{"foo", "permessage-deflate"}, want: both},
		{name: "empty elements", offers: []string{",, permessage-deflate ,"}, want: both},
		{name: "only another extension", offers: []string{"permessage-bzip2"}},
		{name: "unknown parameter", offers: []string{"permessage-deflate; level=9"}},
		{name: "unknown parameter in the first offer", offers: []string{"permessage-deflate; level=9, permessage-deflate"}, want: both},
		{name: "empty parameter", offers: []string{"permessage-deflate;"}},
		{name: "repeated parameter", offers: []string{"permessage-deflate; client_max_window_bits; client_max_window_bits"}},
		{name: "takeover with a value", offers: []string{"permessage-deflate; server_no_context_takeover=1"}},
		{name: "client's takeover with a value", offers: []string{"permessage-deflate; client_no_context_takeover=true"}},
		{name: "server's window without a value", offers: []string{"permessage-deflate; server_max_window_bits"}},
		{name: "client's window of 7 bits", offers: []string{"permessage-deflate; client_max_window_bits=7"}},
		{name: "client's window of 16 bits", offers: []string{"permessage-deflate; client_max_window_bits=16"}},
		{name: "client's window with a zero in front", offers: []string{"permessage-deflate; client_max_window_bits=010"}},
		{name: "client's window with a sign", offers: []string{"permessage-deflate; client_max_window_bits=+10"}},
		{name: "client's window is empty", offers: []string{"permessage-deflate; client_max_window_bits="}},
		{name: "open quote", offers: []string{`permessage-deflate; client_max_window_bits="8`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for _, o := range tt.offers {
				h.Add("Sec-WebSocket-Extensions", o)
			}
			assert.Equal(t, tt.want, deflate.Negotiate(h))
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// The examples of RFC 7692, section 7.2.3, and other ways to end a message.
func TestInflate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		data  string
		want  string
		fails bool
	}{
		{name: "7.2.3.1 one block", data: "f2 48 cd c9 c9 07 00", want: "Hello"},
		{name: "7.2.3.3 no compression", data: "00 05 00 fa ff 48 65 6c 6c 6f 00", want: "Hello"},
		{name: "7.2.3.4 last block", data: "f3 48 cd c9 c9 07 00 00", want: "Hello"},
		{name: "7.2.3.5 two blocks", data: "f2 48 05 00 00 00 ff ff ca c9 c9 07 00", want: "Hello"},
		{name: "7.2.3.6 empty message", data: "00", want: ""},
		{name: "nothing after the last block", data: "f3 48 cd c9 c9 07 00", want: "Hello"},
		{name: "no data", data: "", want: ""},
		{name: "two last blocks", data: "f3 48 cd c9 c9 07 00 f3 48 cd c9 c9 07 00 00", want: "HelloHello"},
		{name: "reserved kind of block", data: "06 00", fails: true},
		{name: "wrong length of a stored block", data: "00 05 00 00 00 48", fails: true},
		{name: "ends in a block", data: "f2 48 cd", fails: true},
		{name: "ends in a stored block", data: "00 06 00 f9 ff 48", fails: true},
		{name: "a distance before the beginning", data: "4a 04 02 00", fails: true},
		{name: "text", data: "7b 22 65 76 65 6e 74 22", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := deflate.Inflate(unhex(t, tt.data), 100)
			if tt.fails {
				assert.EqualError(t, err, "the message is not valid DEFLATE data")
			} else {
				assert.NoError(t, err)
			}
			assert.Equal(t, tt.want, string(got))
		})
	}
}

// The limit is exact, and a message that would have megabytes is refused without them.
func TestInflateLimit(t *testing.T) {
	t.Parallel()
	p := compressWith(t, 9, bytes.Repeat([]byte("x"), 1000))
	got, err := deflate.Inflate(p, 1000)
	require.NoError(t, err)
	assert.Len(t, got, 1000)
	got, err = deflate.Inflate(p, 999)
	require.NoError(t, err)
	assert.Greater(t, len(got), 999)

	bomb := bytes.Repeat(append(compressWith(t, 9, make([]byte, 1<<20)), "\x00\x00\xff\xff"...), 64)
	bytesAllocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			got, err := deflate.Inflate(bomb, 64<<10)
			require.NoError(b, err)
			require.Greater(b, len(got), 64<<10)
		}
	}).AllocedBytesPerOp()
	assert.Less(t, bytesAllocated, int64(1<<20))
}

// compressWith compresses with the standard library, as a client would do it.
func compressWith(t testing.TB, level int, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	require.NoError(t, err)
	_, err = w.Write(message)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// FuzzInflate compares Inflate with the standard library for valid data, which is cut into blocks, and
// checks that it respects its limit for other data.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("Hello"), []byte{3}, 1)
	f.Add([]byte(`{"event":"m"}`), []byte{1, 2, 200}, 9)
	f.Add([]byte("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), []byte{0}, 0)
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), []byte{}, -2)
	const limit = 1000
	f.Fuzz(func(t *testing.T, data, cuts []byte, level int) {
		got, err := deflate.Inflate(data, limit)
		require.LessOrEqual(t, cap(got), 4*limit)
		if err != nil {
			require.Nil(t, got)
		}
		if len(data) == 0 {
			return
		}
		got, err = deflate.Inflate(compress.Append(nil, data), len(data))
		require.NoError(t, err)
		require.Equal(t, data, got)

		var b bytes.Buffer
		w, err := flate.NewWriter(&b, (level%12+12)%12-2)
		require.NoError(t, err)
		rest := data
		for i := 0; len(rest) > 0; i++ {
			n := len(rest)
			if i < len(cuts) {
				n = min(n, int(cuts[i])+1)
			}
			_, _ = w.Write(rest[:n])
			require.NoError(t, w.Flush())
			rest = rest[n:]
		}
		got, err = deflate.Inflate(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")), len(data))
		require.NoError(t, err)
		require.Equal(t, data, got)
	})
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 100, 1000, 30_000, 70_000, 300_000} {
		message := []byte(strings.Repeat(`{"id":1,"name":"é𝄞"},`, n/20+1))[:n]
		dst := compress.Append([]byte("before"), message)
		require.Equal(t, "before", string(dst[:6]))
		got, err := deflate.Inflate(dst[6:], n)
		require.NoError(t, err)
		assert.Equal(t, message, got)
	}
}

func BenchmarkAppend(b *testing.B) {
	message := []byte(strings.Repeat(`{"id":17,"symbol":"ABC","price":12.5,"side":"buy","at":"2026-11-28T12:00:00Z"},`, 12))
	var dst []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(message)))
	for b.Loop() {
		dst = compress.Append(dst[:0], message)
	}
}
