package pushy

import "context"

// Shutdown ends the Server. New connections and triggers are refused with 503;
// every connection is closed with code 3001 (1012 on bare WebSockets), in batches over
// at most 5 s or half the time that ctx has; what was queued for it is still written. When it
// returns nil all Disconnect hooks have run and the Broker is closed. If ctx ends first, the remaining connections are closed without a
// close frame, the hooks run all the same, and it returns ctx's error. A second call
// waits for the first. A client has 5 s to answer the close frame, so give ctx more
// than that.
//
// Shutdown waits for the commands and hooks that run. One that calls it would wait
// for itself until ctx ends, so it should call Shutdown in a new goroutine.
//
// Call it before http.Server.Shutdown, which does not know of WebSockets and
// waits for streams.
func (s *Server) Shutdown(ctx context.Context) error { return s.hub.Shutdown(ctx) }

// Close ends the Server at once: every connection is closed without a close frame,
// and a Shutdown under way waits no longer. The Disconnect hooks have run when it
// returns, except that it waits only a second or two for commands and hooks that
// do not return, such as its own caller.
func (s *Server) Close() error { return s.hub.Close() }
