// Command chat is a chat that uses pushy. It has a public room, a private room that shows
// who is online, commands of its own, and a backend that publishes with a signed request.
//
//	go run ./examples/chat
//
// With PUSHY_SECRET_KEY in the environment, it recognizes its users after a restart. With
// PUSHY_CONSOLE_PASSWORD, the console for operators is at /console/.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/gopushy/pushy/examples/chat/app"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on; port 0 picks a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process immediately
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves the chat until ctx ends.
func run(ctx context.Context, addr string, out io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr, or port 0 for a free one", err)
	}
	return app.Serve(ctx, listener, out, app.Config{
		Secret:   os.Getenv("PUSHY_SECRET_KEY"),
		Password: os.Getenv("PUSHY_CONSOLE_PASSWORD"),
	})
}
