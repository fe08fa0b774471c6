package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Monitor is what the monitoring port shows.
type Monitor struct {
	// Host is the address to listen on; empty: all.
	Host string
	Port int
	// Connections is how many may be open at once; zero: any number.
	Connections int
	// Metrics are served at /metrics.
	Metrics prometheus.Gatherer
	// Alive and Ready answer /healthz and /readyz: nil is 200, an error 503
	// with its text.
	Alive, Ready func() error
	// Profiling adds /debug/pprof.
	Profiling bool
}

// idleLimit is what a connection may wait for its next request: longer than
// scrapes are apart.
const idleLimit = 3 * time.Minute

// Serve answers until ctx ends.
func (m Monitor) Serve(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(m.Host, strconv.Itoa(m.Port)))
	if err != nil {
		return fmt.Errorf("listen on --monitoring-port: %w", err)
	}
	if m.Connections > 0 {
		listener = LimitConnections(listener, m.Connections, nil)
	}
	server := &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleLimit}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(soon) != nil {
			_ = server.Close() // a scrape that hangs is cut off
		}
	})()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on --monitoring-port %d: %w", m.Port, err)
	}
	<-stopped
	return nil
}

func (m Monitor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", answer(m.Alive))
	mux.HandleFunc("/readyz", answer(m.Ready))
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(BuildVersion()) // the client is gone: nobody to tell
	})
	if m.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	}
	return mux
}

func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}
