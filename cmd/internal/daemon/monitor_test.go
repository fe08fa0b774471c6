package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// freePort is one that nobody listens on at this moment.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func healthy() error { return nil }

// serving starts a monitor on a real port, waits until it answers, and returns
// its address, and what stops it and tells how it ended.
func serving(t *testing.T, m Monitor) (url string, stop func() error) {
	t.Helper()
	if m.Metrics == nil {
		m.Metrics = prometheus.NewRegistry()
	}
	m.Port = freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(10 * time.Second):
			return errors.New("it did not end")
		}
	}
	t.Cleanup(func() { _ = stop() })
	url = fmt.Sprintf("http://127.0.0.1:%d", m.Port)
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for range 1000 {
		if resp, err := http.Get(url + "/version"); err == nil {
			_ = resp.Body.Close()
			return url, stop
		}
		<-retry.C
	}
	t.Fatal("it does not answer")
	return "", nil
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestHealth(t *testing.T) { // K-13
	broken := func(text string) func() error { return func() error { return errors.New(text) } }
	for name, c := range map[string]struct {
		alive, ready       func() error
		healthz, readyz    int
		healthText, rdText string
	}{
		"well":      {healthy, healthy, 200, 200, "ok\n", "ok\n"},
		"not ready": {healthy, broken("Istio CA is not ready"), 200, 503, "ok\n", "Istio CA is not ready\n"},
		"stuck":     {broken("the queue has not moved"), healthy, 503, 200, "the queue has not moved\n", "ok\n"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serving(t, Monitor{Alive: c.alive, Ready: c.ready})
			if code, text, _ := get(t, url+"/healthz"); code != c.healthz || text != c.healthText {
				t.Errorf("/healthz: %d %q", code, text)
			}
			if code, text, _ := get(t, url+"/readyz"); code != c.readyz || text != c.rdText {
				t.Errorf("/readyz: %d %q", code, text)
			}
		})
	}
}

func TestVersionAndMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "citadel_test"})
	gauge.Set(7)
	registry.MustRegister(gauge)
	url, _ := serving(t, Monitor{Alive: healthy, Ready: healthy, Metrics: registry})
	code, text, header := get(t, url+"/version")
	var v Version
	if err := json.Unmarshal([]byte(text), &v); err != nil || code != 200 || header.Get("Content-Type") != "application/json" || v != BuildVersion() {
		t.Errorf("/version: %d %s %q (%v)", code, header.Get("Content-Type"), text, err)
	}
	if v.Go == "" || v.Version == "" || !strings.Contains(v.String(), v.Go) {
		t.Errorf("version %+v", v)
	}
	if code, text, _ := get(t, url+"/metrics"); code != 200 || !strings.Contains(text, "citadel_test 7") {
		t.Errorf("/metrics: %d %q", code, text)
	}
	if code, _, _ := get(t, url+"/"); code != 404 {
		t.Errorf("/: %d", code)
	}
}

// TestProfilingOnlyWhenAskedFor: it shows memory, which holds keys.
func TestProfilingOnlyWhenAskedFor(t *testing.T) {
	for asked, want := range map[bool]int{true: 200, false: 404} {
		url, _ := serving(t, Monitor{Alive: healthy, Ready: healthy, Profiling: asked})
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap", "/debug/pprof/symbol"} {
			if code, _, _ := get(t, url+path); code != want {
				t.Errorf("asked for: %v; %s: %d", asked, path, code)
			}
		}
		// pprof.Cmdline would show what secrets somebody put into argv.
		if code, _, _ := get(t, url+"/debug/pprof/cmdline"); code != 404 {
			t.Errorf("/debug/pprof/cmdline: %d", code)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := Monitor{Port: l.Addr().(*net.TCPAddr).Port, Metrics: prometheus.NewRegistry(), Alive: healthy, Ready: healthy}
	if err := m.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "--monitoring-port") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}

func TestShutdown(t *testing.T) {
	url, stop := serving(t, Monitor{Alive: healthy, Ready: healthy})
	if err := stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := http.Get(url + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// TestShutdownCutsOffWhatHangs: a stop takes a second or two, whoever is
// connected.
func TestShutdownCutsOffWhatHangs(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	url, stop := serving(t, Monitor{Alive: healthy, Ready: func() error { close(asked); <-release; return nil }})
	answered := make(chan error, 1)
	go func() {
		_, err := http.Get(url + "/readyz")
		answered <- err
	}()
	<-asked
	begun := time.Now()
	if err := stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	if err := <-answered; err == nil {
		t.Error("what hung was answered")
	}
	close(release)
}
