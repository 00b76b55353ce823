package pusher

import "time"

// SetNow replaces the clock with which timestamps are compared.
func (a *Adapter) SetNow(now func() time.Time) { a.parts.Now = now }
