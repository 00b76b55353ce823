// Package cluster tests that Servers act as one. Clients over all transports subscribe and
// leave on several nodes, to which events are published, while nodes are killed, stopped and
// disconnected from their store, and while the Redis or NATS that they share restarts, fails
// over or loses its data. The tests check the order of everything that each client receives.
// The module has only tests, so that no released module has their dependencies.
//
// PUSHY_SOAK=1 makes the crowds larger, and also checks time limits.
package cluster
