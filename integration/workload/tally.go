package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// timeout is for a call from its beginning to its end.
const timeout = 5 * time.Second

// tally counts calls.
type tally struct {
	identity *identity

	mu         sync.Mutex
	ok, failed int
	errors     []string // the last of them
}

// counts are what the status says.
type counts struct {
	ID       string    `json:"id"`
	NotAfter time.Time `json:"notAfter"`
	Loads    int       `json:"loads"` // of the Secret's files
	OK       int       `json:"ok"`
	Failed   int       `json:"failed"`
	Errors   []string  `json:"errors"`
}

// callAgain calls a peer until the context ends.
func (t *tally) callAgain(ctx context.Context, peer string, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := t.call(ctx, peer); ctx.Err() == nil {
			t.count(peer, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// call makes one connection, and one request over it.
func (t *tally) call(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig:   tlsconfig.MTLSClientConfig(t.identity, t.identity, tlsconfig.AuthorizeMemberOf(t.identity.domain)),
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+peer+"/", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// kept is how many errors are.
const kept = 20

func (t *tally) count(peer string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.ok++
		return
	}
	t.failed++
	t.errors = append(t.errors, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format(time.RFC3339), peer, err))
	t.errors = t.errors[max(0, len(t.errors)-kept):]
}

// ServeHTTP tells the counts.
func (t *tally) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	svid, err := t.identity.GetX509SVID()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(counts{ID: svid.ID.String(), NotAfter: svid.Certificates[0].NotAfter, // the asker may be gone
		Loads: t.identity.timesLoaded(), OK: t.ok, Failed: t.failed, Errors: t.errors})
}
