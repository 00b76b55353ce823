package pusher

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// maxForm is the largest size of a request to the handlers for credentials.
const maxForm = 64 << 10

// Member is a user of a presence channel.
type Member struct {
	ID   string // 1 to 128 bytes
	Info any    // what the others see; encoded as encoding/json does, or nil
}

// AuthHandler returns a handler that gives pages the credentials for private and presence channels.
// The form of the request has socket_id and channel_name, as pusher-js posts them. The func allow
// decides by the request, for example by its session cookie. For a presence channel it returns the
// user; for other channels the result is not used. The same origins are allowed as for connections.
//
// If allow returns pushy.ErrNeedAuth, the status is 401. For pushy.ErrDenied, and for a
// *pushy.Error, whose Message the page sees, it is 403. Any other error, and a panic, is logged, and
// the status is 500.
func (a *Adapter) AuthHandler(allow func(r *http.Request, channel string) (*Member, error)) http.Handler {
	return a.credentials([]string{"socket_id", "channel_name"}, func(r *http.Request) (any, error) {
		socketID, channel := r.PostForm.Get("socket_id"), r.PostForm.Get("channel_name")
		// A colon in either would let one signature be that of another channel, or of a user.
		if !socketPattern.MatchString(socketID) {
			return nil, malformed("socket_id is not valid")
		}
		if !channelPattern.MatchString(channel) {
			return nil, malformed("channel_name " + errChannelName.Error())
		}
		member, err := allow(r, channel)
		if err != nil {
			return nil, err
		}
		var answer struct {
			Auth        string  `json:"auth"`
			ChannelData *string `json:"channel_data,omitempty"`
		}
		if pusherform.IsPresence(channel) {
			if member == nil {
				return nil, errors.New("pusher: the func given to AuthHandler returned no Member for a presence channel")
			}
			data, err := member.channelData()
			if err != nil {
				return nil, err
			}
			answer.ChannelData = &data
		}
		answer.Auth = a.key + ":" + pusherform.Sign(a.secrets[0], channelText(socketID, channel, answer.ChannelData))
		return answer, nil
	})
}

func (m *Member) channelData() (string, error) {
	if err := pusherform.CheckUser(m.ID); err != nil {
		return "", fmt.Errorf("pusher: Member.ID %w", err)
	}
	data := jsvalue.Object(nil).Text("user_id", m.ID)
	if m.Info != nil {
		info, err := jsvalue.Encode(m.Info)
		if err != nil {
			return "", fmt.Errorf("pusher: Member.Info: %w", err)
		}
		data = data.Raw("user_info", info)
	}
	return string(data), nil
}

// UserAuthHandler returns a handler that gives pages the credential with which they sign in
// (pusher.signin). The func user returns who has made the request. The errors are those of
// AuthHandler.
func (a *Adapter) UserAuthHandler(user func(r *http.Request) (Member, error)) http.Handler {
	return a.credentials([]string{"socket_id"}, func(r *http.Request) (any, error) {
		socketID := r.PostForm.Get("socket_id")
		if !socketPattern.MatchString(socketID) {
			return nil, malformed("socket_id is not valid")
		}
		who, err := user(r)
		if err != nil {
			return nil, err
		}
		if err := pusherform.CheckUser(who.ID); err != nil {
			return nil, fmt.Errorf("pusher: Member.ID %w", err)
		}
		data := jsvalue.Object(nil).Text("id", who.ID)
		if who.Info != nil {
			info, err := jsvalue.Encode(who.Info)
			if err != nil {
				return nil, fmt.Errorf("pusher: Member.Info: %w", err)
			}
			data = data.Raw("user_info", info)
		}
		return map[string]string{
			"auth":      a.key + ":" + pusherform.Sign(a.secrets[0], userText(socketID, string(data))),
			"user_data": string(data),
		}, nil
	})
}

// malformed is the error for a request that is not valid.
type malformed string

func (m malformed) Error() string { return string(m) }

// credentials returns a handler whose answers decide makes. Each of the fields must be in the form once.
func (a *Adapter) credentials(fields []string, decide func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Add("Vary", "Origin")
		if _, refused := a.parts.Origin(r); refused != nil {
			http.Error(w, refused.Message, refused.Status)
			return
		}
		a.parts.AllowCORS(w.Header(), r)
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST a form", http.StatusMethodNotAllowed)
			return
		}
		if err := a.readForm(w, r, fields); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		err := errors.New("pusher: the func failed") // unless it returns
		var answer any
		if !a.parts.Decide("the func given to a handler of package pusher", func() { answer, err = decide(r) }) {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		a.write(w, answer, err)
	})
}

func (a *Adapter) readForm(w http.ResponseWriter, r *http.Request, fields []string) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return errors.New("the Content-Type must be application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.parts.BodyTimeout))
	if err := r.ParseForm(); err != nil {
		return errors.New("the form cannot be read")
	}
	for _, name := range fields {
		if len(r.PostForm[name]) != 1 {
			return fmt.Errorf("the form must have %s once", name)
		}
	}
	return nil
}

// write answers a request for a credential.
func (a *Adapter) write(w http.ResponseWriter, answer any, err error) {
	var seen *pushy.Error
	var invalid malformed
	switch {
	case err == nil:
		body, err := json.Marshal(answer)
		if err != nil {
			panic(err) // it has strings only
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	case errors.As(err, &invalid):
		http.Error(w, invalid.Error(), http.StatusBadRequest)
	case errors.Is(err, pushy.ErrNeedAuth):
		http.Error(w, "log in first", http.StatusUnauthorized)
	case errors.As(err, &seen):
		http.Error(w, seen.Message, http.StatusForbidden)
	case errors.Is(err, pushy.ErrDenied):
		http.Error(w, "forbidden", http.StatusForbidden)
	default:
		a.parts.Notices.Warn("pusher: the func for a credential failed", "", slog.String("error", err.Error()))
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}
