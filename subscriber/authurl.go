package subscriber

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// AuthURL returns a TokenFunc that asks an auth endpoint, such as Server.AuthHandler (PROTOCOL.md,
// section 11), for several channels at once if the endpoint allows it. The client adds what identifies
// the user, such as cookies (http.Client.Jar); nil is http.DefaultClient. A status from 400 to 499 is
// ErrDenied.
func AuthURL(rawURL string, client *http.Client) TokenFunc {
	if client == nil {
		client = http.DefaultClient
	}
	e := &authEndpoint{
		url:    rawURL,
		client: client,
	}
	return e.tokens
}

type authEndpoint struct {
	url    string
	client *http.Client

	mu    sync.Mutex
	batch int // the number of channels of one request; 0 if it is not known that there can be several
}

// authAnswer is the answer for one channel, or one of several answers.
type authAnswer struct {
	Auth  *string         `json:"auth"`
	Data  json.RawMessage `json:"data"`
	Batch int             `json:"batch"`
	// Error is an object in an answer of its own, and a string among several.
	Error    json.RawMessage       `json:"error"`
	Status   int                   `json:"status"`
	Channels map[string]authAnswer `json:"channels"`
}

func (e *authEndpoint) tokens(ctx context.Context, r TokenRequest) (map[string]Token, error) {
	tokens := map[string]Token{}
	for channels := r.Channels; len(channels) > 0; {
		n := min(max(e.known(0), 1), len(channels))
		answer, err := e.ask(ctx, r.ConnID, channels[:n])
		switch {
		case n == 1:
			tokens[channels[0]] = answer.token(err)
		case err != nil:
			return nil, err
		case answer.Channels == nil:
			e.known(1)
			continue
		default:
			for _, channel := range channels[:n] {
				one := answer.Channels[channel]
				tokens[channel] = one.token(statusError(one.Status, one.reason()))
			}
		}
		channels = channels[n:]
	}
	return tokens, nil
}

// known returns the number of channels of one request. A number above 0 is remembered.
func (e *authEndpoint) known(batch int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if batch > 0 {
		e.batch = batch
	}
	return e.batch
}

// ask sends one request.
func (e *authEndpoint) ask(ctx context.Context, connID string, channels []string) (answer authAnswer, err error) {
	form := url.Values{
		"channel":       channels,
		"connection_id": {connID},
	}
	if e.known(0) > 0 {
		form.Set("v", "2")
	}
	req, err := http.NewRequestWithContext(ctx, "POST", e.url, strings.NewReader(form.Encode()))
	if err != nil {
		return answer, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := e.client.Do(req)
	if err != nil {
		return answer, fmt.Errorf("subscriber: auth endpoint: %w", err)
	}
	defer resp.Body.Close()
	const most = 4 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return answer, fmt.Errorf("subscriber: auth endpoint: %w", err)
	}
	malformed := json.Unmarshal(body, &answer)
	if answer.Batch > 0 {
		e.known(min(answer.Batch, maxTokens))
	}
	if err := statusError(resp.StatusCode, answer.reason()); err != nil {
		return answer, err
	}
	if malformed != nil {
		return answer, fmt.Errorf("%w: the auth endpoint answered %.60q", ErrDenied, body)
	}
	return answer, nil
}

// statusError returns the error that a status means, or nil.
func statusError(status int, reason string) error {
	switch {
	case status == 0, status >= 200 && status <= 299:
		return nil
	case status >= 400 && status <= 499:
		return fmt.Errorf("%w: the auth endpoint answered %d %s", ErrDenied, status, reason)
	}
	return fmt.Errorf("subscriber: the auth endpoint answered %d %s", status, reason)
}

func (a *authAnswer) reason() string {
	var text string
	var object struct{ Message string }
	if json.Unmarshal(a.Error, &text) == nil {
		return text
	}
	_ = json.Unmarshal(a.Error, &object)
	return object.Message
}

// token returns the token of an answer, or err.
func (a *authAnswer) token(err error) Token {
	t := Token{
		Data: a.Data,
		Err:  err,
	}
	switch {
	case err != nil:
	case a.Auth == nil:
		t.Err = errors.Join(ErrDenied, errors.New("subscriber: the auth endpoint answered without a token"))
	case *a.Auth == "": // a public channel
		t.public = true
	default:
		t.Auth = *a.Auth
	}
	return t
}
