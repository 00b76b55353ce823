package fanout_test

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy/internal/deflate/compress"
	"github.com/gopushy/pushy/internal/fanout"
)

// BenchmarkEncode encodes one message in one form, as is done once for all receivers.
func BenchmarkEncode(b *testing.B) {
	forms := []struct {
		name string
		form fanout.Form
	}{{"framed", fanout.Framed}, {"bare", fanout.Bare}}
	for _, size := range []int{60, 200, 4000} {
		text := []byte(`{"event":"m","channel":"room","data":{"text":"` + strings.Repeat("x", size) + `"}}`)
		for _, f := range forms {
			b.Run(fmt.Sprintf("%s/%d", f.name, size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					fanout.NewFrame(text).Bytes(f.form)
				}
			})
		}
	}
}

// swallows is a socket that accepts everything.
type swallows struct{ form fanout.Form }

func (s *swallows) Form() fanout.Form                       { return s.form }
func (s *swallows) Write([]byte, time.Duration) error       { return nil }
func (s *swallows) Finish(_ int, _ string, _ time.Duration) {}
func (s *swallows) Direct() fanout.Direct                   { return s }
func (s *swallows) Broken()                                 {}
func (s *swallows) TryWrite(p []byte) (int, error)          { return len(p), nil }

// BenchmarkForms writes eight events of 1 KB to 1,000 connections that have one form, or one of two in
// turn.
func BenchmarkForms(b *testing.B) {
	const connections, events = 1000, 8
	for _, forms := range [][]fanout.Form{{fanout.Framed}, {fanout.Framed, fanout.FramedDeflate}} {
		b.Run(strconv.Itoa(len(forms)), func(b *testing.B) {
			b.ReportAllocs()
			e := fanout.New(fanout.Config{
				MaxBytes:     1 << 20,
				MaxTotal:     1 << 30,
				WriteTimeout: time.Second,
				Flushers:     1,
				Compress: fanout.Compress{
					From:   512,
					Append: compress.Append,
				},
			})
			boxes := make([]*fanout.Outbox, connections)
			gates := make([]fanout.Gate, connections)
			for i := range boxes {
				boxes[i] = e.NewOutbox(&swallows{forms[i%len(forms)]}, func(int, string) {})
				boxes[i].Open(&gates[i], fanout.RawFrame([]byte("open")))
			}
			text := []byte(strings.Repeat("a few words, ", 80))
			for b.Loop() {
				for range events {
					f := fanout.NewFrame(text)
					e.Compress(f, forms[len(forms)-1])
					for i, o := range boxes {
						o.SendThrough(&gates[i], f)
					}
				}
				e.Flush()
				for e.Waiting() > 0 {
					runtime.Gosched()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*connections*events), "ns/delivery")
			for _, o := range boxes {
				o.Discard()
			}
			e.Wait()
		})
	}
}
