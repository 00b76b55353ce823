package fanout_test

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/deflate/compress"
	"github.com/gopushy/pushy/internal/fanout"
)

func compressing(from int) *fanout.Engine {
	return fanout.New(fanout.Config{MaxBytes: wide, MaxTotal: wide, Compress: fanout.Compress{From: from, Append: compress.Append}})
}

// inflate decompresses a frame that the standard library can read.
func inflate(t *testing.T, wire []byte) string {
	t.Helper()
	require.Equal(t, byte(0xc1), wire[0], "FIN, RSV1, text")
	head := 2
	if wire[1] == 126 {
		head = 4
	} else if wire[1] == 127 {
		head = 10
	}
	r := flate.NewReader(io.MultiReader(bytes.NewReader(wire[head:]), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text)
}

func TestCompress(t *testing.T) {
	t.Parallel()
	text := []byte(`{"event":"m","channel":"room","data":"` + strings.Repeat("a word ", 20) + `"}`)
	e := compressing(100)
	f := fanout.NewFrame(text)
	plain := string(fanout.TextFrame(text))

	assert.Equal(t, plain, string(fanout.NewFrame(text).Bytes(fanout.BareDeflate)), "a frame that nobody has compressed")
	e.Compress(f, fanout.Bare)
	assert.Zero(t, e.Compressed(), "only clients with permessage-deflate need it")

	assert.False(t, f.Has(fanout.BareDeflate))
	e.Compress(f, fanout.BareDeflate)
	assert.True(t, f.Has(fanout.BareDeflate))
	wire := f.Bytes(fanout.BareDeflate)
	assert.Equal(t, string(text), inflate(t, wire))
	assert.Less(t, len(wire), len(plain)/2)
	assert.Equal(t, plain, string(f.Bytes(fanout.Bare)), "the others receive it as it is")

	e.Compress(f, fanout.BareDeflate)
	assert.EqualValues(t, 1, e.Compressed().Events, "at most once")
	assert.EqualValues(t, len(text), e.Compressed().Before)
	assert.EqualValues(t, len(wire), e.Compressed().After)

	e.Compress(f, fanout.FramedDeflate)
	assert.Equal(t, string(f.Bytes(fanout.Framed)[4:]), inflate(t, f.Bytes(fanout.FramedDeflate)))
	assert.EqualValues(t, 2, e.Compressed().Events)
}

// What is small, or does not become smaller, is sent as it is.
func TestCompressOnlyIfSmaller(t *testing.T) {
	t.Parallel()
	e := compressing(100)
	small := fanout.NewFrame(bytes.Repeat([]byte("x"), 99))
	e.Compress(small, fanout.BareDeflate)
	assert.Equal(t, small.Bytes(fanout.Bare), small.Bytes(fanout.BareDeflate))
	assert.Zero(t, e.Compressed())

	noise := make([]byte, 1000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	random := fanout.NewFrame(noise)
	e.Compress(random, fanout.BareDeflate)
	assert.Equal(t, random.Bytes(fanout.Bare), random.Bytes(fanout.BareDeflate))
	assert.Equal(t, fanout.Compressed{Events: 1, Before: 1000, After: 1000}, e.Compressed())

	off := wideEngine(0)
	f := fanout.NewFrame(bytes.Repeat([]byte("x"), 1000))
	off.Compress(f, fanout.BareDeflate)
	assert.Equal(t, f.Bytes(fanout.Bare), f.Bytes(fanout.BareDeflate))

	list := fanout.RawList(fanout.TextFrame([]byte("raw")))
	compressing(1).Compress(list, fanout.BareDeflate)
	assert.Equal(t, fanout.TextFrame([]byte("raw")), list.Bytes(fanout.BareDeflate))
}

// deflateSocket is a socket with permessage-deflate.
type deflateSocket struct{ socket }

func (*deflateSocket) Form() fanout.Form { return fanout.BareDeflate }

// The queued bytes are those of the compressed frames, and when the socket is full at any of them, all
// arrive once.
func TestCompressedFramesAtEveryByte(t *testing.T) {
	t.Parallel()
	texts := [][]byte{
		bytes.Repeat([]byte("the first "), 30),
		[]byte("small"),
		bytes.Repeat([]byte("another one "), 30),
	}
	engine := compressing(100)
	var frames []*fanout.Frame
	whole := []byte("open")
	for _, text := range texts {
		f := fanout.NewFrame(text)
		engine.Compress(f, fanout.BareDeflate)
		frames = append(frames, f)
		whole = append(whole, f.Bytes(fanout.BareDeflate)...)
	}
	require.Less(t, len(whole), 250, "uncompressed, they have more than 600 bytes")
	for room := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			e := wideEngine(0)
			s := &deflateSocket{socket{room: room}}
			s.sink.gate = make(chan struct{})
			o := e.NewOutbox(s, func(code int, reason string) { t.Error(code, reason) })
			o.Hold()
			g := &fanout.Gate{}
			require.True(t, o.Open(g, fanout.RawFrame([]byte("open"))))
			for _, f := range frames {
				fan := e.Fan(f)
				require.True(t, fan.Send(o, g))
				fan.Flush()
			}
			assert.EqualValues(t, len(whole), e.Waiting())
			o.Release()
			synctest.Wait()
			close(s.sink.gate)
			synctest.Wait()
			o.Close(1000, "")
			<-o.Done()
			e.Wait()
			assert.Zero(t, e.Waiting())
			assert.Equal(t, string(whole), s.all(), "room for %d", room)
		})
	}
}
