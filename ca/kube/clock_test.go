package kube

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// answers gives a Date each time, after some time.
type answers struct {
	date func() string
	err  error
}

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Header: http.Header{"Date": {a.date()}}}, a.err
}

func TestClock(t *testing.T) {
	off := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for name, c := range map[string]struct {
		dates []time.Duration
		known bool
		ahead time.Duration // to a second
	}{
		"nothing yet":               {nil, false, 0},
		"too little":                {[]time.Duration{-time.Hour, -time.Hour}, false, 0},
		"right":                     {[]time.Duration{0, 0, 0}, true, 0},
		"ahead":                     {[]time.Duration{-10 * time.Minute, -10 * time.Minute, -10 * time.Minute}, true, 10 * time.Minute},
		"behind":                    {[]time.Duration{10 * time.Minute, 10 * time.Minute, 10 * time.Minute}, true, -10 * time.Minute},
		"one answer is wrong":       {[]time.Duration{0, time.Hour, time.Hour}, true, 0},
		"what is long ago is past":  {[]time.Duration{0, time.Hour, time.Hour, time.Hour}, true, -time.Hour},
		"set right in the meantime": {[]time.Duration{time.Hour, time.Hour, time.Hour, 0}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var clock Clock
			for _, d := range c.dates {
				if _, err := clock.Wrap(answers{date: func() string { return off(d) }}).RoundTrip(&http.Request{}); err != nil {
					t.Fatal(err)
				}
			}
			ahead, known := clock.Ahead()
			if known != c.known || (ahead-c.ahead).Abs() > 1100*time.Millisecond {
				t.Errorf("ahead by %s, known: %v; want %s, %v", ahead, known, c.ahead, c.known)
			}
		})
	}
}

func TestClockTakesNoOtherAnswers(t *testing.T) {
	var clock Clock
	for _, a := range []answers{{date: func() string { return "" }}, {date: func() string { return "yesterday" }},
		{date: func() string { return time.Now().UTC().Format(http.TimeFormat) }, err: errors.New("refused")}} {
		for range 2 * sights {
			_, _ = clock.Wrap(a).RoundTrip(&http.Request{})
		}
	}
	asked := time.Now()
	for range sights {
		clock.saw(asked, asked, asked.Add(tooSlow+time.Second))
	}
	if ahead, known := clock.Ahead(); known {
		t.Errorf("ahead by %s", ahead)
	}
}
