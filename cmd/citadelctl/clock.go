package main

import (
	"net/http"
	"sync/atomic"
	"time"
)

// serverClock learns from answers how far the API server's clock is ahead of
// ours.
type serverClock struct{ ahead atomic.Int64 }

// closeEnough is what the Date of an answer, in whole seconds, and its way here
// may make up.
const closeEnough = 2 * time.Second

// now is the API server's time, which is ours where the two differ by nothing
// to speak of.
func (c *serverClock) now() time.Time { return time.Now().Add(c.skew()) }

// skew is how far the API server's clock is ahead; 0 before its first answer.
func (c *serverClock) skew() time.Duration {
	if d := time.Duration(c.ahead.Load()); d.Abs() > closeEnough {
		return d
	}
	return 0
}

// listen reads the Date of each answer.
func (c *serverClock) listen(next http.RoundTripper) http.RoundTripper {
	return clockTransport{next, c}
}

// clockTransport looks at the answers of another.
type clockTransport struct {
	next  http.RoundTripper
	clock *serverClock
}

// WrappedRoundTripper lets client-go cancel requests of the transport below.
func (t clockTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip is of http.RoundTripper.
func (t clockTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		middle := begun.Add(time.Since(begun) / 2)
		t.clock.ahead.Store(int64(date.Add(time.Second / 2).Sub(middle)))
	}
	return resp, nil
}
