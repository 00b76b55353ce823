package fanout

// ShortestPause is the time that a burst is gathered for at least after its last event.
var ShortestPause = shortestPause
