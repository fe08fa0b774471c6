package kube

import (
	"net/http"
	"sync"
	"time"
)

// Clock compares this machine's clock with the API server's, by the Date of its
// answers (RFC 9110 6.6.1). The zero Clock is ready, and safe for concurrent use.
type Clock struct {
	mu     sync.Mutex
	recent [sights]time.Duration // the last differences, in turn; guarded by mu
	seen   int                   // guarded by mu
	off    bool                  // what Off said last; guarded by mu
}

// sights is how many answers have to agree.
const sights = 3

// tooSlow answers say too little about when they were given.
const tooSlow = 5 * time.Second

// Wrap returns a transport that looks at each answer of the one given.
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper { return clockTransport{c, next} }

// Ahead is by how much this machine's clock is ahead of the API server's, behind
// it when negative: the least of what the last answers show, to about a second.
// It is false until there were enough of them.
func (c *Clock) Ahead() (ahead time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead()
}

// Off tells whether this machine's clock is ahead or behind by more than the
// limit, and by how much it is ahead. One that was off is so until it has come
// back to three quarters of the limit: else one that stands at the limit would
// come and go. A limit of zero, and what is not known, is never off.
func (c *Clock) Off(limit time.Duration) (ahead time.Duration, off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bound := limit
	if c.off {
		bound = limit / 4 * 3
	}
	ahead, known := c.ahead()
	c.off = known && limit > 0 && ahead.Abs() > bound
	return ahead, c.off
}

// ahead is Ahead, with the lock held.
func (c *Clock) ahead() (ahead time.Duration, known bool) {
	if c.seen < sights {
		return 0, false
	}
	ahead = c.recent[0]
	for _, d := range c.recent[1:] {
		if d.Abs() < ahead.Abs() {
			ahead = d
		}
	}
	return ahead, true
}

// saw takes in one answer: a Date, cut to the second, was right at some moment
// between asked and answered.
func (c *Clock) saw(date, asked, answered time.Time) {
	var ahead time.Duration
	switch {
	case answered.Sub(asked) > tooSlow:
		return
	case answered.Before(date):
		ahead = answered.Sub(date)
	case asked.After(date.Add(time.Second)):
		ahead = asked.Sub(date.Add(time.Second))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent[c.seen%sights] = ahead
	c.seen++
}

type clockTransport struct {
	clock *Clock
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t clockTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	asked := time.Now()
	response, err := t.next.RoundTrip(req)
	if err != nil {
		return response, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		t.clock.saw(date, asked, time.Now())
	}
	return response, nil
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t clockTransport) WrappedRoundTripper() http.RoundTripper { return t.next }
