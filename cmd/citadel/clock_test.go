package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// lateServer is an API server that says of leases, bans and its version that
// there are none, by a clock that is ahead, and no more.
type lateServer struct{ ahead atomic.Int64 }

func (s *lateServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if path := req.URL.Path; path != "/version" && !strings.Contains(path, "/leases") && !strings.Contains(path, "/istio-citadel-bans") {
		return nil, errors.New("no answer")
	}
	date := time.Now().Add(time.Duration(s.ahead.Load())).UTC().Format(http.TimeFormat)
	return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Date": {date}}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// TestWrongClockIsLearnt: within seconds, also where no lease is renewed; and
// never where nobody wants to know.
func TestWrongClockIsLearnt(t *testing.T) {
	for name, c := range map[string]struct {
		flags []string
		wrong bool
	}{
		"a lease":      {nil, true},
		"no lease":     {[]string{"--leader-elect=false"}, true},
		"server only":  {[]string{"--server-only"}, true},
		"not judged":   {[]string{"--max-clock-skew=0"}, false},
		"not that far": {[]string{"--max-clock-skew=6m"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files, _, _ := operatorsCA(t, time.Now(), "issuing")
				cfg, err := configure(t, nil, append(c.flags, files...)...)
				if err != nil {
					t.Fatal(err)
				}
				cfg.grpcPort = 0 // a real port would not be of this bubble
				var server lateServer
				client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://nowhere", Transport: cfg.clock.Wrap(&server)})
				if err != nil {
					t.Fatal(err)
				}
				cfg.client = client
				p := newProcess(cfg, quiet(), &auditStream{out: io.Discard})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- p.work(ctx, p.cluster(client)) }()
				time.Sleep(time.Minute)
				if err := p.clockWrong(); err != nil {
					t.Error(err)
				}
				server.ahead.Store(int64(5 * time.Minute))
				time.Sleep(10 * time.Second)
				if err := p.clockWrong(); (err != nil) != c.wrong {
					t.Errorf("after 10 s the clock is judged %v", err)
				}
				cancel()
				if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// TestNoRootByAnUnknownClock: an API server that does not say what time it is
// lets nobody make a root, unless nobody wants to know.
func TestNoRootByAnUnknownClock(t *testing.T) {
	for flag, want := range map[string]bool{"--max-clock-skew=1m": true, "--max-clock-skew=0": false} {
		files, _, _ := operatorsCA(t, time.Now(), "issuing")
		cfg, err := configure(t, nil, append([]string{flag}, files...)...)
		if err != nil {
			t.Fatal(err)
		}
		server := &lateServer{}
		var down atomic.Bool
		down.Store(true)
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://nowhere", Transport: cfg.clock.Wrap(outage{server, &down})})
		if err != nil {
			t.Fatal(err)
		}
		cfg.client = client
		p := newProcess(cfg, quiet(), &auditStream{})
		if err := p.rightClock(t.Context()); (err != nil) != want {
			t.Errorf("%s, while it is down: %v", flag, err)
		}
		down.Store(false)
		if err := p.rightClock(t.Context()); err != nil {
			t.Errorf("%s, when it answers: %v", flag, err)
		}
	}
}

// outage lets nothing through while it lasts.
type outage struct {
	next http.RoundTripper
	down *atomic.Bool
}

func (o outage) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.down.Load() {
		return nil, errors.New("no route to host")
	}
	return o.next.RoundTrip(r)
}
