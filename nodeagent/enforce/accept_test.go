package enforce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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

// TestCrowdOutOfFiles: where connections that are served have taken all files, those
// that come are refused, each of them.
func TestCrowdOutOfFiles(t *testing.T) {
	echoes := exec.Command(os.Args[0]) // a process of its own, whose files are not these
	echoes.Env = append(os.Environ(), echoHere+"=1")
	echoes.Stderr = os.Stderr
	said, err := echoes.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stay, err := echoes.StdinPipe() // until this ends
	if err != nil {
		t.Fatal(err)
	}
	if err := echoes.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stay.Close(); _ = echoes.Wait() }()
	var address string
	if _, err := fmt.Fscanln(said, &address); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	e := r.enforcer("httpbin", func(s *Settings) { s.Observe = func(Event) {} })
	at := r.in(e, netip.MustParseAddrPort(address), Port{}, mode("DISABLE"))
	if heard := r.ask(at, "hello"); heard != "hello" {
		t.Fatalf("heard %q", heard)
	}
	sockets := make([]int, 400)
	for i := range sockets {
		if sockets[i], err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(sockets[i])
		if err := syscall.SetsockoptTimeval(sockets[i], syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: int64(deadline / time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	restore := moreFiles(t, 100)
	defer restore()
	var served, refused atomic.Int64
	var all sync.WaitGroup
	for _, socket := range sockets {
		all.Go(func() {
			if err := syscall.Connect(socket, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil && err != syscall.ECONNRESET {
				t.Error(err)
			}
			_, _ = syscall.Write(socket, []byte("x"))
			switch n, err := syscall.Read(socket, make([]byte, 1)); {
			case n == 1:
				served.Add(1)
			case err == syscall.ECONNRESET || err == syscall.ENOTCONN || n == 0 && err == nil: // as its write had heard already
				refused.Add(1)
			default:
				t.Errorf("one waits: %v", err)
			}
		})
	}
	all.Wait()
	if served.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d served, %d refused", served.Load(), refused.Load())
	}
}

// echoHere has this program be an application that echoes, for as long as its input
// lasts.
const echoHere = "ENFORCE_ECHO"

func TestMain(m *testing.M) {
	if os.Getenv(echoHere) == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				echo(c)
			}()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// noMoreFiles has the process open none until it is restored. Pipes that other tests
// have left are closed before, and none is by a collection of garbage meanwhile.
func noMoreFiles(t *testing.T) (restore func()) { return moreFiles(t, 0) }

// moreFiles has it open so many.
func moreFiles(t *testing.T, more uint64) (restore func()) {
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
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: fd + more, Max: before.Max}); err != nil {
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
