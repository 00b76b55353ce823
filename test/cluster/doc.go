// Package cluster tests that Servers act as one: clients over all transports subscribe,
// leave and publish on several nodes while nodes are killed, cut off and stopped, and while
// the Redis or NATS that they share restarts, fails over or loses its data. What each client
// sees is held to the rules of order. The module has tests only, so that no module that is
// released needs what they need.
//
// PUSHY_SOAK=1 makes the crowds large and holds what happens to its time, too.
package cluster
