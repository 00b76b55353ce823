package app

import (
	"crypto/subtle"
	"fmt"
	"net/http"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/console"
)

// minPassword is the smallest number of bytes of the operators' password, because nothing limits
// how often somebody can try.
const minPassword = 16

// operators returns the console, which asks for a password. An app with a login of its own checks
// here whether the user is an operator.
func operators(srv *pushy.Server, password string) (http.Handler, error) {
	if len(password) < minPassword {
		return nil, fmt.Errorf("the password of the console has %d bytes; it needs %d", len(password), minPassword)
	}
	return console.New(srv, console.Options{
		Authorize: func(r *http.Request) (who string, err error) {
			name, given, _ := r.BasicAuth()
			if subtle.ConstantTimeCompare([]byte(given), []byte(password)) != 1 {
				return "", pushy.ErrNeedAuth // the browser asks for a name and a password
			}
			return name, nil
		},
	})
}
