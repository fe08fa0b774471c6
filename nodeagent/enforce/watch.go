package enforce

import (
	"sync/atomic"
	"syscall"
	"time"
)

// unread is how long nobody may read a side before it is looked whether it was cut:
// while the other takes nothing, or after it has said all.
var unread = 5 * time.Second

// watch looks after a socket while nobody reads it.
type watch struct {
	of, to *socket
	cut    func() // what happens if it was cut off
	every  time.Duration
	timer  *time.Timer
	on     atomic.Bool
	over   atomic.Bool  // it has said all
	heard  atomic.Int32 // the error that cut it off, of which the kernel tells once
	found  atomic.Bool  // that cut was called
}

func newWatch(of, to *socket, cut func()) *watch {
	w := &watch{of: of, to: to, cut: cut, every: unread}
	w.timer = time.AfterFunc(w.every, w.look)
	w.timer.Stop()
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
	if !w.on.Load() {
		return
	}
	if w.heard.Load() == 0 {
		w.heard.Store(int32(w.of.lost()))
	}
	switch syscall.Errno(w.heard.Load()) {
	case 0:
	case syscall.EPIPE: // it ended before that: all that it has said is to be heard first
		if !w.over.Load() || w.to.unsent() {
			break
		}
		fallthrough
	default:
		w.found.Store(true)
		w.cut()
		return
	}
	w.timer.Reset(w.every)
}
