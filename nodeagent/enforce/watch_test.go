package enforce

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestResetWhileNobodyReads: a client that cuts its connection is told of though the
// application takes nothing, and no place is held for it.
func TestResetWhileNobodyReads(t *testing.T) {
	defer func(d time.Duration) { unread = d }(unread)
	unread = 10 * time.Millisecond
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			release, heard := make(chan struct{}), make(chan error, 1)
			app := r.app(func(c net.Conn) {
				<-release
				_ = c.SetReadDeadline(time.Now().Add(deadline))
				_, err := io.Copy(io.Discard, c)
				heard <- err
			})
			c := r.dial(r.chain(app, server))
			_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // the kernel's buffers are full long before
			if _, err := io.Copy(c, io.LimitReader(zeroes{}, 1<<30)); err == nil {
				t.Error("what nobody reads was taken")
			}
			select {
			case e := <-r.events:
				t.Errorf("a connection that stood still was over: %+v", e)
			default:
			}
			reset(c)
			if e := r.event(); e.Reason != PeerReset || broke(e.Err) != "reset" {
				t.Errorf("%+v", e)
			}
			close(release)
			if err := <-heard; err == nil || broke(err) != "reset" {
				t.Errorf("the application saw %v", err)
			}
		})
	}
}

// TestEndWhileNobodyReads: a client that has said all, and has been told all, is none
// that was cut, however long the application takes to read it.
func TestEndWhileNobodyReads(t *testing.T) {
	defer func(d time.Duration) { unread = d }(unread)
	unread = time.Millisecond
	const length = 16 << 20
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			release, heard := make(chan struct{}), make(chan int64, 1)
			app := r.app(func(c net.Conn) {
				_ = c.(*net.TCPConn).CloseWrite()
				<-release
				_ = c.SetReadDeadline(time.Now().Add(deadline))
				n, _ := io.Copy(io.Discard, c)
				heard <- n
			})
			c := r.dial(r.chain(app, server))
			if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Fatalf("%d, %v", n, err)
			}
			said := make(chan error, 1)
			go func() {
				_, err := io.Copy(c, io.LimitReader(zeroes{}, length))
				c.Close()
				said <- err
			}()
			time.AfterFunc(200*time.Millisecond, func() { close(release) })
			if err := <-said; err != nil {
				t.Error(err)
			}
			if n := <-heard; n != length {
				t.Errorf("the application read %d bytes of %d", n, length)
			}
		})
	}
}

// TestResetAfterAnEnd: a client that has said all, and cuts its connection then, is
// told of though the application is silent.
func TestResetAfterAnEnd(t *testing.T) {
	defer func(d time.Duration) { unread = d }(unread)
	unread = 10 * time.Millisecond
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			ended, heard := make(chan struct{}), make(chan bool)
			app := r.app(func(c net.Conn) {
				defer close(heard)
				_, _ = io.ReadAll(c)
				close(ended)
				waitFor(t, (&socket{TCPConn: c.(*net.TCPConn)}).closed) // and says nothing, by which it would hear of it
			})
			c := r.dial(r.chain(app, server))
			_, _ = io.WriteString(c, "request")
			_ = c.CloseWrite()
			<-ended
			reset(c)
			if e := r.event(); e.Reason != PeerReset {
				t.Errorf("%+v", e)
			}
			<-heard
		})
	}
}

// TestAllOfWhatEnded: a client that has said all and is gone is heard to its end,
// though it refuses a late word meanwhile.
func TestAllOfWhatEnded(t *testing.T) {
	defer func(d time.Duration) { unread = d }(unread)
	unread = time.Millisecond
	const length = 1 << 20
	app := func(heard chan<- int64) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_, _ = io.WriteString(c, "x") // which nobody reads any more
			n, _ := io.Copy(io.Discard, c)
			heard <- n
		}
	}
	r, heard := newRig(t), make(chan int64, 1)
	to, from := r.dial(r.app(app(heard))), make(chan *net.TCPConn, 1)
	at := r.app(func(c net.Conn) {
		from <- c.(*net.TCPConn)
		<-t.Context().Done()
	})
	client := r.dial(at)
	side := plainSide(<-from)
	if _, err := client.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	_, _ = side.tcp.TCPConn.Write([]byte("late")) // is answered by a reset
	w := newWatch(side.tcp, plainSide(to).tcp, func() { t.Error("what had come was not heard") })
	waitFor(t, side.tcp.closed)
	w.begin()
	waitFor(t, func() bool { return w.heard.Load() != 0 })
	if why := syscall.Errno(w.heard.Load()); why != syscall.EPIPE || w.found.Load() {
		t.Errorf("%v, %v", why, w.found.Load())
	}
	w.end()
	if n, err := side.Read(make([]byte, length)); n != 10 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := side.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("then %v", err)
	}
	to.Close()
	<-heard
}

// spliced has the kernel carry from a client to a server: while it does, to is the
// side that leads to the server, and over gets what ended it.
func spliced(t *testing.T) (client, server *net.TCPConn, to *socket, over chan error) {
	before := spliceWait
	spliceWait = deadline
	t.Cleanup(func() { spliceWait = before })
	r, accepted := newRig(t), make(chan *net.TCPConn)
	at := r.app(func(c net.Conn) {
		accepted <- c.(*net.TCPConn)
		<-t.Context().Done()
	})
	client = r.dial(at)
	from := plainSide(<-accepted).tcp
	to = plainSide(r.dial(at)).tcp
	server, over = <-accepted, make(chan error, 1)
	go func() { _, err := splice(to, from); over <- err }()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return client, server, to, over
}

// TestSplicedCut: where a side is cut while the kernel carries to it, the one who
// carries may hear only that it is over, and no end is made of it.
func TestSplicedCut(t *testing.T) {
	client, server, to, over := spliced(t)
	if _, err := io.WriteString(server, "part"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, len("part"))); err != nil {
		t.Fatal(err)
	}
	reset(server)
	waitFor(t, to.closed)
	to.control(func(fd uintptr) { _, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) }) // as a splice does that has carried a part
	if _, err := client.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if err := <-over; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("it carried on: %v", err)
	}
	if _, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who reads the side hears %v", err)
	}
}

// TestSplicedEnd: what ended while the kernel carried to it, and was reset for what it
// was told after that, has ended.
func TestSplicedEnd(t *testing.T) {
	client, server, to, over := spliced(t)
	if _, err := io.WriteString(server, "answer"); err != nil {
		t.Fatal(err)
	}
	server.Close()
	waitFor(t, func() bool {
		_, _ = client.Write([]byte("y"))
		return len(over) > 0
	})
	if err := <-over; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("it carried on: %v", err)
	}
	if said, err := io.ReadAll(to); string(said) != "answer" || err != nil {
		t.Errorf("it said %q, %v", said, err)
	}
}
