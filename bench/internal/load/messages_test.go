package load

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deflatedText returns a compressed message as a server sends it.
func deflatedText(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	f := ws.NewTextFrame(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
	f.Header.Rsv = ws.Rsv(true, false, false)
	return ws.MustCompileFrame(f)
}

// Messages of any size are counted wherever the bytes are split, and inflated by those that check them.
func TestMessages(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 70_000) // so that the third kind of header is used
	for i := range noise {
		noise[i] = "0123456789abcdef"[(i*i+i/7)%16]
	}
	var texts []string
	wire := ws.MustCompileFrame(ws.NewTextFrame([]byte("h")))
	for i, text := range []string{"short", strings.Repeat("long ", 300), "", string(noise)} {
		texts = append(texts, fmt.Sprintf("@@%08d %s", i, text))
		wire = append(wire, deflatedText(t, texts[i])...)
		wire = append(wire, ws.MustCompileFrame(ws.NewPingFrame(nil))...)
	}
	for _, check := range []bool{false, true} {
		for _, size := range []int{1, 2, 3, 7, 100, 4096, len(wire)} {
			m := newMessages(check)
			var got []string
			for part := range chunks(wire, size) {
				require.NoError(t, m.read(part, func(message []byte) error {
					got = append(got, string(message))
					return nil
				}))
			}
			if check {
				require.Equal(t, texts, got, "cut every %d bytes", size)
			} else {
				require.Equal(t, make([]string, len(texts)), got, "cut every %d bytes", size)
			}
		}
	}
}

// What the server must not send is an error.
func TestMessagesFaults(t *testing.T) {
	t.Parallel()
	none := func([]byte) error { return nil }
	large := ws.MustCompileFrame(ws.NewTextFrame(bytes.Repeat([]byte("x"), longestPlain+1)))
	require.ErrorContains(t, newMessages(false).read(large, none), "is not compressed")
	require.NoError(t, newMessages(false).pass(large), "before the events")

	invalid := deflatedText(t, "text")
	invalid[2] = 6
	require.ErrorContains(t, newMessages(true).read(invalid, none), "cannot be inflated")

	wrong := errors.New("wrong")
	assert.ErrorIs(t, newMessages(true).read(deflatedText(t, "text"), func([]byte) error { return wrong }), wrong)

	for _, text := range []string{"", "no token", "@@123", "@@1234567x", "@@ @@"} {
		_, found := token([]byte(text))
		assert.False(t, found, text)
	}
	seq, found := token([]byte(`@@ "@@00000042`))
	assert.True(t, found)
	assert.EqualValues(t, 42, seq)
}

// A client that inflates detects an event that is missing.
func TestMessagesOrder(t *testing.T) {
	t.Parallel()
	r := &reader{cfg: &Config{Channels: 1}}
	c := &client{zip: newMessages(true)}
	send := func(seq int) error {
		_, err := r.take(c, append(make([]byte, room), deflatedText(t, fmt.Sprintf("@@%08d", seq))...))
		return err
	}
	require.NoError(t, send(0))
	require.NoError(t, send(1))
	require.EqualError(t, send(3), "a client got event 3 where 2 was to come")
}
