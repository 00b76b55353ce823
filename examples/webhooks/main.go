// Webhooks is an app that knows who is online from the webhooks of a pushy server. See README.md.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	secret := os.Getenv("PUSHY_WEBHOOK_SECRET")
	if secret == "" {
		log.Fatal(`PUSHY_WEBHOOK_SECRET is not set: use "whsec_" and the output of openssl rand -base64 32`)
	}
	online := &Online{
		Secrets: []string{secret},
		Reload:  func(reason string) { log.Printf("events were lost (%s): the lists are to be read again", reason) },
	}
	srv := &http.Server{
		Addr:              "127.0.0.1:8090",
		Handler:           routes(online),
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Printf("webhooks: http://%s/webhooks; who is in a channel: http://%[1]s/online/private-room", srv.Addr)
	log.Fatal(srv.ListenAndServe())
}

func routes(online *Online) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", online)
	mux.HandleFunc("GET /online/{channel}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(online.Users(r.PathValue("channel")))
	})
	return mux
}
