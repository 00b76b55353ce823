//go:build !unix

package websocket

import (
	"net"
	"syscall"
)

// On systems where sockets are not file descriptors, all connections are read and written
// with the methods of net.Conn.

func rawConn(net.Conn) syscall.RawConn { return nil }

func newPooledSource(syscall.RawConn) source { panic("websocket: no raw connections here") }

func tryWrite(syscall.RawConn, []byte) (int, error) { return 0, nil }

func await(syscall.RawConn) error { panic("websocket: no raw connections here") }
