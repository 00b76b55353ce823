package pushy

import (
	"net/http"

	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

func init() {
	inmem.Admit = func(srv any, w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool) {
		return srv.(*Server).admit(w, r)
	}
}
