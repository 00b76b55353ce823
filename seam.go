package pushy

import "github.com/gopushy/pushy/internal/seam"

func init() {
	seam.Of = func(server any) seam.Server {
		s := server.(*Server)
		return seam.Server{
			Hub:   s.hub,
			Admit: s.admit,
		}
	}
}
