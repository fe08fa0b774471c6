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

// TestClockIsOff: beyond the limit, and from then on down to three quarters of it.
func TestClockIsOff(t *testing.T) {
	const limit = 2 * time.Minute
	for name, c := range map[string]struct {
		limit time.Duration
		ahead []time.Duration
		off   bool
	}{
		"not known":               {limit, nil, false},
		"right":                   {limit, []time.Duration{0}, false},
		"at the limit":            {limit, []time.Duration{limit}, false},
		"ahead":                   {limit, []time.Duration{limit + 2*time.Second}, true},
		"behind":                  {limit, []time.Duration{-limit - 2*time.Second}, true},
		"near, and never off":     {limit, []time.Duration{100 * time.Second}, false},
		"near, and off before":    {limit, []time.Duration{3 * time.Minute, 100 * time.Second}, true},
		"behind, and ahead once":  {limit, []time.Duration{3 * time.Minute, -100 * time.Second}, true},
		"back":                    {limit, []time.Duration{3 * time.Minute, 100 * time.Second, 80 * time.Second}, false},
		"back, and near again":    {limit, []time.Duration{3 * time.Minute, 80 * time.Second, 100 * time.Second}, false},
		"no limit":                {0, []time.Duration{time.Hour}, false},
		"a limit for an hour off": {2 * time.Hour, []time.Duration{time.Hour}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var clock Clock
			base := time.Date(2026, 7, 14, 12, 0, 0, 0, time.UTC)
			_, off := clock.Off(c.limit)
			for _, ahead := range c.ahead {
				for range sights {
					clock.saw(base, base.Add(ahead), base.Add(ahead))
				}
				var by time.Duration
				if by, off = clock.Off(c.limit); (by - ahead).Abs() > time.Second {
					t.Errorf("ahead by %s, want %s", by, ahead)
				}
			}
			if off != c.off {
				t.Errorf("off: %v, want %v", off, c.off)
			}
		})
	}
}
