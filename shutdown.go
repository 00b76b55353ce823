package pushy

import "context"

// Shutdown ends the Server. New connections and triggers are refused with status 503. All
// connections are closed with code 3001 (1012 on bare WebSockets), in batches over the time
// in which their clients can return (Options.ReturnRate), but at most 5 s and half the time
// until the deadline of ctx. Clients of version 2 of the protocol are told before that, each
// one, when to return: their moments are spread evenly over this time, which is at most 60 s.
// Events that are queued for a connection are still sent. When Shutdown returns nil, all
// Disconnect hooks have run and the Broker is closed. If ctx ends first, the remaining
// connections are closed without a close frame, their hooks run, and Shutdown returns the
// error of ctx. A second call waits for the first. A client has 5 s to answer the close
// frame, so the deadline of ctx should be later than that.
//
// If there is a Broker, Shutdown first makes the lease of this Server longer, to the time
// within which its clients return (Options.ReturnRate) plus Options.Grace, so that the
// members of a large Server remain until their clients have returned to the others. If the
// Broker cannot do that, and the clients' time is longer than Grace, the log says so.
//
// Shutdown waits for commands and hooks that are running. A command or hook that called
// Shutdown would wait for itself until ctx ends; it should call Shutdown in a new
// goroutine.
//
// Call Shutdown before http.Server.Shutdown, because that method does not close WebSockets
// and waits for the responses of streaming transports.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.logOmittedEndings()
	return s.hub.Shutdown(ctx)
}

// Close ends the Server at once. All connections are closed without a close frame, and a
// Shutdown that is in progress stops waiting. The Disconnect hooks have run when Close
// returns, unless a command or hook does not return: Close waits for those at most about 2
// s. So a command or hook can call Close.
func (s *Server) Close() error {
	defer s.logOmittedEndings()
	return s.hub.Close()
}
