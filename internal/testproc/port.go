package testproc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreePort returns a port of 127.0.0.1 on which nothing listens, for a process that listens on
// it later, perhaps again after it was stopped. Linux gives ports from 32,768 on to connections
// and to listeners that do not name one, so that those of other tests do not get this port
// meanwhile.
func FreePort() (string, error) {
	for range 1000 {
		port := strconv.Itoa(10_240 + rand.IntN(32_768-10_240))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			return port, l.Close()
		}
	}
	return "", errors.New("no free port from 10,240 to 32,767")
}
