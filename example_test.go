package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

func Example() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	// Anywhere in the app:
	err = srv.Publish(context.Background(), "news", "headline", map[string]string{"text": "Hello"})
	fmt.Println(err)
	// Output: <nil>
}

// A move in a game: only who is in the room may make one, and the others hear
// of it.
func ExampleServer_RegisterCommand() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.RegisterCommand("move", func(srv *pushy.Server, conn *pushy.Conn, data json.RawMessage, channels *pushy.Channels) {
		var move struct {
			Room string `json:"room"`
			X, Y int
		}
		if err := json.Unmarshal(data, &move); err != nil {
			_ = conn.ReplyError(&pushy.Error{Code: "400", Message: "A move has a room, x and y"})
			return
		}
		room, ok := channels.Lookup(move.Room)
		if !ok || !room.Has(conn) {
			_ = conn.ReplyError(&pushy.Error{Code: "403", Message: "You are not in that room"})
			return
		}
		_, err := srv.PublishEvent(conn.Context(), pushy.Event{
			Channel: room.Name(),
			Name:    "moved",
			Data:    move,
			Except:  []string{conn.ID()},
		})
		if err != nil {
			log.Print(err)
		}
		_ = conn.Reply("move-accepted", struct{}{})
	})
}

// The same with types: data is checked before the func sees it, and what it returns
// goes back to the client that asked.
func ExampleHandle() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	type move struct {
		Room string `json:"room"`
		X    int    `json:"x"`
		Y    int    `json:"y"`
	}
	type accepted struct {
		Turn int `json:"turn"`
	}
	pushy.Handle(srv, "move", func(ctx context.Context, conn *pushy.Conn, m move) (accepted, error) {
		room, ok := srv.Channels().Lookup(m.Room)
		if !ok || !room.Has(conn) {
			return accepted{}, &pushy.Error{Code: "403", Message: "You are not in that room"}
		}
		_, err := srv.PublishEvent(ctx, pushy.Event{
			Channel: room.Name(),
			Name:    "moved",
			Data:    m,
			Except:  []string{conn.ID()},
		})
		if err != nil {
			return accepted{}, err // the client sees "Internal error"
		}
		return accepted{Turn: 1}, nil
	})
}

// Tokens for private channels, for the app's own users.
func ExampleServer_AuthHandler() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/auth", srv.AuthHandler(func(r *http.Request, connID, channel string) (any, error) {
		name, _, ok := r.BasicAuth() // your session or login
		if !ok || channel != "private-staff" {
			return nil, pushy.ErrDenied
		}
		return map[string]string{"name": name}, nil
	}))
}

// pushy first: http.Server does not know of WebSockets.
// A page that the server renders: first the position, then the data, and every event is
// published after its change is committed. So what is published while the page is on its way
// to the browser is among the events after the position, which the page receives when it
// subscribes with it.
func ExampleServer_Position() {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a long secret, from the environment",
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: time.Hour}}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	ctx := context.Background()
	stock := 100 // in a database
	sell := func() {
		stock-- // commit,
		if err := srv.Publish(ctx, "shop", "stock", stock); err != nil {
			log.Print(err) // and then publish
		}
	}

	sell()
	since, err := srv.Position(ctx, "shop") // first the position,
	if err != nil {
		log.Fatal(err)
	}
	sell()
	page := stock // then the data
	sell()

	fmt.Println("the page shows", page)
	missed, err := srv.History(ctx, "shop", pushy.HistoryOptions{After: since.Offset})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range missed.Events {
		fmt.Println("it receives", string(e.Data)) // the first is in the page already, which does no harm
	}
	// Output:
	// the page shows 98
	// it receives 98
	// it receives 97
}

// A typing indicator: the members of a room send it to each other, and the app decides about
// each event.
func ExampleChannelOptions() {
	typing := func(conn *pushy.Conn, event string, _ json.RawMessage) (json.RawMessage, error) {
		if event != "client-typing" {
			return nil, &pushy.Error{Code: "400", Message: "There is no such event"}
		}
		// What the client sent is not passed on: the others receive the user that the app knows.
		return json.Marshal(map[string]string{"user": conn.UserID()})
	}
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a long secret, from the environment",
		Channel: func(name string) pushy.ChannelOptions {
			var o pushy.ChannelOptions
			if strings.HasPrefix(name, "private-room-") {
				o.ClientEvent = typing
			}
			return o
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
}

func ExampleServer_Shutdown() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	web := &http.Server{Addr: "127.0.0.1:0", Handler: srv, ReadHeaderTimeout: 10 * time.Second}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(stop, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		fmt.Println(srv.Shutdown(ctx), web.Shutdown(ctx))
	})
	cancel() // as the signal does
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Println(err)
	}
}

// A page of a user who is logged in is rendered with a token for the user's channels, so that it
// subscribes without a request to the auth endpoint. Options.Accept must return the same user.
func ExampleSignToken() {
	token, err := pushy.SignToken("a long secret, from the environment", pushy.Token{
		Channels: []string{"private-user-42", "private-news"},
		User:     "42",
		Expires:  time.Now().Add(10 * time.Minute),
		Data:     map[string]string{"name": "Ann"},
	})
	fmt.Println(strings.Count(token, "."), err)
	// Output: 3 <nil>
}

// An auth endpoint that looks the session up once for all channels of a page.
func ExampleServer_AuthAll() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	rooms := map[string][]string{"ann": {"private-lobby", "private-staff"}} // of each session
	auth := srv.AuthAll(func(r *http.Request, connID string, channels []string) (map[string]any, error) {
		session, err := r.Cookie("session")
		if err != nil {
			return nil, pushy.ErrNeedAuth
		}
		allowed := map[string]any{}
		for _, room := range rooms[session.Value] {
			allowed[room] = map[string]string{"name": session.Value}
		}
		return allowed, nil // all other channels are refused
	})
	body := strings.NewReader("channel=private-lobby&channel=private-cellar&connection_id=0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8")
	r := httptest.NewRequest("POST", "/auth", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: "session", Value: "ann"})
	w := httptest.NewRecorder()
	auth.ServeHTTP(w, r)
	var answer struct {
		Channels map[string]struct {
			Auth  string
			Error string
		}
	}
	err = json.Unmarshal(w.Body.Bytes(), &answer)
	fmt.Println(answer.Channels["private-lobby"].Auth[:3], answer.Channels["private-cellar"].Error, err)
	// Output: v2. not authorized <nil>
}

// A bot that answers in a chat.
func ExampleServer_Subscribe() {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for receipt := (pushy.Receipt{}); receipt.Receivers != broker.Some; { // until the bot is there
			receipt, _ = srv.PublishEvent(ctx, pushy.Event{Channel: "chat", Name: "said", Data: "Is anybody here?"})
		}
	}()
	for e, err := range srv.Subscribe(ctx, "chat") {
		if err != nil {
			log.Fatal(err)
		}
		if e.Name == "answered" {
			fmt.Printf("%s: %s %s\n", e.Channel, e.Name, e.Data)
			break
		}
		// The bot receives its own events, too.
		if err := srv.Publish(ctx, "chat", "answered", "The bot is."); err != nil {
			log.Fatal(err)
		}
	}
	// Output: chat: answered "The bot is."
}

// Long polling: the client asks with the position that it has, and gets the next event.
func ExampleServer_Listen() {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a long secret, from the environment",
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: time.Hour}}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	poll := func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 25*time.Second)
		defer cancel()
		o := pushy.ListenOptions{Channels: []string{"orders"}}
		if since, err := broker.ParsePosition(r.URL.Query().Get("since")); err == nil {
			o.Since = map[string]broker.Position{"orders": since}
		}
		l, err := srv.Listen(ctx, o)
		if err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		for e, err := range l.Events() { // the first pair is enough, and closes the Listener
			if err != nil {
				w.WriteHeader(http.StatusNoContent) // nothing within 25 s
			} else {
				fmt.Fprintf(w, "%s %s at %d", e.Kind, e.Data, e.Position.Offset)
			}
			break
		}
	}
	before, err := srv.Position(context.Background(), "orders")
	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Publish(context.Background(), "orders", "paid", 17); err != nil {
		log.Fatal(err)
	}
	answer := httptest.NewRecorder()
	poll(answer, httptest.NewRequest("GET", "/poll?since="+before.String(), nil))
	fmt.Println(answer.Body)
	// Output: published 17 at 1
}
