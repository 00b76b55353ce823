package pushy

import (
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
)

// Compression compresses events, see Options.Compress. Package deflate returns its values, so that
// hosts which do not compress link nothing for it. It is immutable.
type Compression struct {
	compress fanout.Compress
	deflate  transport.Deflate
}

func init() {
	seam.NewCompression = func(compress fanout.Compress, deflate transport.Deflate) any {
		return &Compression{
			compress: compress,
			deflate:  deflate,
		}
	}
}

// engine returns what the engine needs. c can be nil.
func (c *Compression) engine() fanout.Compress {
	if c == nil {
		return fanout.Compress{}
	}
	return c.compress
}

// transport returns what WebSockets need. c can be nil.
func (c *Compression) transport() *transport.Deflate {
	if c == nil {
		return nil
	}
	return &c.deflate
}
