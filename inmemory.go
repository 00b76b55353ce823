package pushy

import (
	"net/http"

	"github.com/gopushy/pushy/internal/inmemory"
	"github.com/gopushy/pushy/internal/transport"
)

func init() {
	inmemory.Admit = func(srv any, w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
		return srv.(*Server).admit(w, r)
	}
}
