package caserver

import (
	"fmt"
	"sync"
	"time"
)

// The defaults of PolicySettings.
const (
	defaultWatches          = 20_000
	defaultWatchesPerCaller = 8
	defaultSendLimit        = 30 * time.Second
)

// streams counts the watches that are open, by caller.
type streams struct {
	all, each int

	mu    sync.Mutex
	count int            // guarded by mu
	of    map[string]int // guarded by mu: none is zero
}

// open takes a place for a watch of a caller.
func (s *streams) open(caller string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.of[caller] >= s.each:
		return nil, &limitError{reason: fmt.Sprintf("the caller has %d watches of policy open already", s.each), retry: time.Minute}
	case s.count >= s.all:
		return nil, &limitError{reason: fmt.Sprintf("%d watches of policy are open already", s.all), retry: time.Minute}
	}
	if s.of == nil {
		s.of = map[string]int{}
	}
	s.of[caller]++
	s.count++
	return func() { s.close(caller) }, nil
}

func (s *streams) close(caller string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	if s.of[caller]--; s.of[caller] == 0 {
		delete(s.of, caller)
	}
}
