package enforce

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// crowded is a listener of a process that has one file to spare while out is true.
type crowded struct {
	net.Listener
	out   *atomic.Bool
	tries int
}

var errFiles = os.NewSyscallError("accept4", syscall.EMFILE)

func (l *crowded) Accept() (net.Conn, error) {
	if l.tries++; l.out.Load() && l.tries%2 == 1 {
		return nil, errFiles
	}
	return l.Listener.Accept()
}

// TestOutOfFiles: who comes when no file is left is refused, and that is told; none
// waits for a file.
func TestOutOfFiles(t *testing.T) {
	var out atomic.Bool
	before, opened := openSpare, 0
	t.Cleanup(func() { openSpare = before })
	openSpare = func() (*os.File, error) {
		if opened++; out.Load() && opened%2 == 0 {
			return nil, errFiles
		}
		return before()
	}
	r := newRig(t)
	e := r.enforcer("httpbin")
	app := r.app(echo)
	out.Store(true)
	at := r.listen(func(ctx context.Context, l net.Listener) error {
		return e.Inbound(ctx, &crowded{Listener: l, out: &out}, Port{App: app.String()})
	})
	r.say(at, mode("DISABLE"))
	for range 3 {
		if heard := r.hold(at, ""); heard != "reset" {
			t.Errorf("without a file: heard %q", heard)
		}
		if v := r.event(); v.Reason != TooMany || v.Direction != Inbound || !v.Remote.IsValid() || !isOutOfFiles(v.Err) {
			t.Errorf("%+v", v)
		}
	}
	out.Store(false)
	if heard := r.ask(at, "hello"); heard != "hello" && heard != "reset" { // which may have been taken with the file to spare
		t.Errorf("heard %q", heard)
	}
	if heard := r.ask(at, "hello"); heard != "hello" {
		t.Errorf("with files again: heard %q", heard)
	}
}

// TestSpareFile: the file to spare is not given away while nobody comes.
func TestSpareFile(t *testing.T) {
	r := newRig(t)
	e, app := r.enforcer("httpbin"), r.app(func(c net.Conn) { _, _ = io.WriteString(c, listens(c)) })
	at := r.in(e, app, Port{}, mode("DISABLE"))
	if heard := r.ask(at, "hello"); heard != "hello" { // it is served, and has its spare file
		t.Fatalf("heard %q", heard)
	}
	r.event()
	sockets := make([]int, 3)
	for i := range sockets {
		var err error
		if sockets[i], err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(sockets[i])
	}
	restore := noMoreFiles(t)
	defer restore()
	for _, socket := range sockets {
		if err := syscall.Connect(socket, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil && err != syscall.ECONNRESET { // which may come before it returns
			t.Error(err)
		}
		if v := r.event(); v.Reason != TooMany || !isOutOfFiles(v.Err) {
			t.Errorf("%+v", v)
		}
		waitFor(t, func() bool { // the agent has its spare file again, and keeps it
			file, err := os.Open(os.DevNull)
			file.Close()
			return isOutOfFiles(err)
		})
	}
}

// noMoreFiles has the process open none until it is restored. Pipes that other tests
// have left are closed before, and none is by a collection of garbage meanwhile.
func noMoreFiles(t *testing.T) (restore func()) {
	percent := debug.SetGCPercent(-1)
	for range 3 {
		runtime.GC()
	}
	last, done := new([4]*int), make(chan struct{})
	runtime.SetFinalizer(last, func(*[4]*int) { close(done) })
	runtime.GC()
	<-done
	next, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fd := uint64(next.Fd())
	next.Close()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: fd, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		debug.SetGCPercent(percent)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
}

// TestNoFileToDial: an application that could not be called for want of a file is not
// said to be down.
func TestNoFileToDial(t *testing.T) {
	r := newRig(t)
	e, app := r.enforcer("httpbin"), r.app(echo)
	restore := noMoreFiles(t)
	_, err := e.dial(t.Context(), app.String(), &Event{}, func(Direction) bool { return false })
	restore()
	if reasonOf(err, Unreachable) != TooMany {
		t.Errorf("%v", err)
	}
}

// TestPipes: the kernel carries for as many as may have pipes; for the others bytes
// are copied, and none is lost.
func TestPipes(t *testing.T) {
	defer pipesOpen.Store(pipesOpen.Load())
	for _, taken := range []int64{mostPipes(), mostPipes() - 1} {
		pipesOpen.Store(taken)
		r := newRig(t)
		c := r.dial(r.chain(r.app(echo), "DISABLE"))
		sent := strings.Repeat("0123456789abcdef", spliceSize/8)
		go func() {
			_, err := io.WriteString(c, sent)
			_ = errors.Join(err, c.CloseWrite())
		}()
		if heard, err := io.ReadAll(c); string(heard) != sent || err != nil {
			t.Errorf("%d of %d bytes, %v", len(heard), len(sent), err)
		}
		r.event()
		if now := pipesOpen.Load(); now != taken {
			t.Errorf("%d pipes are taken, %d before", now, taken)
		}
	}
}
