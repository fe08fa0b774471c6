package enforce

import (
	"sync/atomic"
	"time"
)

// unread is how long nobody may read a side before it is looked whether it was cut:
// while the other takes nothing, or after it has said all.
var unread = 5 * time.Second

// watch looks after a socket while nobody reads it.
type watch struct {
	of    *socket
	cut   func() // what happens if it was cut off
	every time.Duration
	timer *time.Timer
	on    atomic.Bool
	found atomic.Bool // that it was
}

func newWatch(of *socket, cut func()) *watch {
	w := &watch{of: of, cut: cut, every: unread}
	w.timer = time.AfterFunc(w.every, w.look)
	return w
}

func (w *watch) begin() {
	w.on.Store(true)
	w.timer.Reset(w.every)
}

func (w *watch) end() {
	w.on.Store(false)
	w.timer.Stop()
}

func (w *watch) look() {
	switch {
	case !w.on.Load():
	case w.of.lost():
		w.found.Store(true)
		w.cut()
	default:
		w.timer.Reset(w.every)
	}
}
