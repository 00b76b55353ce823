// Package deflate compresses events for clients whose WebSockets support permessage-deflate (RFC 7692):
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Compress:  deflate.From(512),
//	})
//
// It is a package of its own so that hosts which do not compress link nothing for it.
package deflate

import (
	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/deflate"
	"github.com/gopushy/pushy/internal/deflate/compress"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

// From returns the value of Options.Compress that compresses events whose message has at least bytes
// bytes. It is nil, which compresses nothing, if bytes is not positive. Several Servers can have the same value.
func From(bytes int) *pushy.Compression {
	if bytes <= 0 {
		return nil
	}
	out := fanout.Compress{
		From:   bytes,
		Append: compress.Append,
	}
	in := transport.Deflate{
		Negotiate: deflate.Negotiate,
		Inflate:   deflate.Inflate,
	}
	return seam.NewCompression(out, in).(*pushy.Compression)
}
