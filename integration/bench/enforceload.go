package main

import (
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	chunk       = 1 << 20 // of bulk, which is counted by chunks
	requestSize = 64
	exchanged   = 10_000 // bytes each way, of an exchange that is no small request
	// wantsStream is how a request for bulk begins; all others are said back.
	wantsStream = 's'
	// allOf bounds what one client does: more is no measurement.
	allOf = time.Minute
)

// serveApp is the application behind the proxies: it says back what it hears, or
// sends bulk for as long as somebody takes it.
func serveApp(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			heard := make([]byte, exchanged)
			for {
				n, err := c.Read(heard)
				if err != nil {
					return
				}
				if heard[0] == wantsStream {
					sendBulk(c)
					return
				}
				if _, err := c.Write(heard[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func sendBulk(c net.Conn) {
	block := make([]byte, 256<<10)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// askOnce dials, and has its one request answered.
func askOnce(address string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, allOf)
	if err != nil {
		return nil, err
	}
	if err := again(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// again has one request more answered.
func again(c net.Conn) error {
	var said [requestSize]byte
	return saidBack(c, said[:])
}

// exchange has a large request answered.
func exchange(c net.Conn) error { return saidBack(c, make([]byte, exchanged)) }

func saidBack(c net.Conn, said []byte) error {
	_ = c.SetDeadline(time.Now().Add(allOf))
	if _, err := c.Write(said); err != nil {
		return err
	}
	_, err := io.ReadFull(c, said)
	return err
}

// open opens connections for one turn, each for one request.
func open(address string) ([]time.Duration, error) {
	return during(openers, func(int) error {
		c, err := askOnce(address)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// request asks on one warm connection for one turn.
func request(address string) ([]time.Duration, error) {
	c, err := askOnce(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return during(1, func(int) error { return again(c) })
}

// stream takes bulk over so many connections for one turn, chunk by chunk.
func stream(address string, connections int) ([]time.Duration, error) {
	conns, err := hold(address, connections)
	defer closeConns(conns)
	if err != nil {
		return nil, err
	}
	buffers := make([][256 << 10]byte, connections)
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(allOf))
		if _, err := c.Write([]byte{wantsStream}); err != nil {
			return nil, err
		}
	}
	return during(connections, func(i int) error {
		for left := chunk; left > 0; {
			n, err := conns[i].Read(buffers[i][:min(left, len(buffers[i]))])
			if left -= n; err != nil {
				return err
			}
		}
		return nil
	})
}

// hold opens connections that stay, of which each has had an answer.
func hold(address string, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	var dials errgroup.Group
	dials.SetLimit(dialling)
	for i := range conns {
		dials.Go(func() (err error) {
			conns[i], err = askOnce(address)
			return err
		})
	}
	return conns, dials.Wait()
}

func closeConns(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.Close() // nothing is under way
		}
	}
}
